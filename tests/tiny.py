"""Tiny random models with weights that leave nothing at zero, and scripted pruners, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from methods.base import HOOKS, IN_LLM, Plan, Pruner, Selection, Site, View

IMAGE, START, END, EOS, TEXT = 60, 61, 62, 63, 40  # token ids; text ids are 0..39


def qwen3_vl(
    dtype: torch.dtype = torch.float32, attention: str = "sdpa", vit_layers: int = 8, llm_layers: int = 6
) -> Qwen3VLForConditionalGeneration:
    """A Qwen3-VL of 16-wide heads: 8 ViT blocks with DeepStack taps at 1, 3, 5, GQA 4/2, M-RoPE."""
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": llm_layers,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
        },
        vision_config={
            "depth": vit_layers, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1, 3, 5],
        },
        image_token_id=IMAGE, vision_start_token_id=START, vision_end_token_id=END, video_token_id=59,
    )  # fmt: skip
    config._attn_implementation = attention
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name) + parameter.numel()))
        scale = 0.3 if parameter.ndim == 1 else 1.5 / parameter.shape[-1] ** 0.5
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = noise * scale + offset
    model.generation_config.eos_token_id = EOS
    model.generation_config.pad_token_id = 0
    model.set_attn_implementation(attention)
    return model.to(dtype).eval()


def processed(grids: tuple[tuple[int, int], ...] = ((4, 6),), seed: int = 1, text: int = 5) -> dict[str, Tensor]:
    """What a processor would give for images of `grids` (rows, columns) units with text around each."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = [3, 7]
    for rows, columns in grids:
        ids += [START, *[IMAGE] * (rows * columns), END, 11]
    ids += [*torch.randint(0, TEXT, (text,), generator=generator).tolist(), EOS, 9, 12]
    patches = sum(rows * columns for rows, columns in grids) * 4
    return {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
        "pixel_values": torch.randn(patches, 3 * 2 * 4 * 4, generator=generator),
        "image_grid_thw": torch.tensor([[1, rows * 2, columns * 2] for rows, columns in grids]),
        "mm_token_type_ids": torch.tensor([[int(token == IMAGE) for token in ids]]),
    }


@dataclass(frozen=True)
class Scripted(Pruner):
    """A pruner that does at each site what a test says. script: site -> function of the view."""

    script: Mapping[Site, object] = field(default_factory=dict)
    signals: tuple = ()
    policy: str = "original"
    name: ClassVar[str] = "scripted"
    hooks: ClassVar[tuple[str, ...]] = HOOKS

    @property
    def positions(self) -> str:  # type: ignore[override]
        return self.policy

    def needs(self, shape):
        return self.signals

    def _do(self, view: View) -> Selection:
        return self.script[view.site](view)  # type: ignore[operator]

    before_tokenization = in_vit = at_interface = in_llm = _do

    def plan(self, budget, shape) -> Plan:
        return self.whole_plan()

    def whole_plan(self) -> Plan:
        """A plan with every scripted site, counts left to the script."""
        return Plan(dict.fromkeys(self.script))


def keep_units(*units: int, image: int = 0):
    """Keep the rows whose unit ids are given (of one image; rows of other images all stay)."""

    def decide(view: View) -> Selection:
        wanted = torch.tensor(units)
        mine = view.image == image
        return Selection(torch.nonzero(~mine | torch.isin(view.unit, wanted)).flatten())

    return decide


def in_llm(layer: int) -> Site:
    return Site(IN_LLM, layer)
