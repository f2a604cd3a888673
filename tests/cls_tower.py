"""A Qwen3-VL of units of one patch with a made-up CLS before each image, for tests of methods that read a CLS row."""

from __future__ import annotations

from dataclasses import replace

import torch
from tiny import EOS, processed, qwen3_vl
from transformers import Qwen3VLForConditionalGeneration

from harness.models.families.qwen3_vl import Qwen3VL

CLS = torch.linspace(-1, 1, 32)
TWO = ((2, 3), (3, 2))


class WithCls(Qwen3VL):
    def inputs(self, processed):
        inputs = super().inputs(processed)
        return replace(inputs, shape=replace(inputs.shape, vit_cls=True))

    def embed(self, inputs, keep):
        state = super().embed(inputs, keep)
        grown = state.with_extra([CLS.to(state.hidden.dtype)[None] for _ in state.segments])
        return replace(grown, segments=tuple(replace(s, extra=0, prefix=1) for s in grown.segments))

    def forward_arguments(self, *arguments):
        given = super().forward_arguments(*arguments)
        given["mm_encoder_outputs"]["image"].deepstack_features = []  # Qwen3-VL wants a list, this one has no taps
        return given


def family_with_cls() -> WithCls:
    config = qwen3_vl().config
    config.vision_config.spatial_merge_size, config.vision_config.deepstack_visual_indexes = 1, []
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5)
    model.generation_config.eos_token_id = EOS
    return WithCls(model)


def batch(grids=TWO):
    whole = processed(grids)
    one_patch = torch.tensor([[1, rows, columns] for rows, columns in grids])
    return {**whole, "pixel_values": whole["pixel_values"][: int(one_patch.prod(1).sum())], "image_grid_thw": one_patch}
