"""Qwen3-VL: ViT with learned + rotary positions, 2x2 merger, DeepStack, M-RoPE.

The staged vision loop calls the model's own sub-modules in the order of `Qwen3VLVisionModel.forward`
(transformers 5.18-5.23); the LLM runs through the public `forward` / `generate`. Apache-2.0 upstream, nothing copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

from harness.models.attention import TAP
from harness.models.family import Family, Features, Inputs, single_prompt, weights_hash
from harness.models.llm import Decoder
from harness.models.prompt import Prompt, image_spans, with_placeholders
from harness.models.resizing import resampled
from harness.models.vision import Segment, VisionState, count_by_image
from methods.base import ModelInfo, Shape


class Qwen3VL(Family):
    model_type = "qwen3_vl"
    rope = "mrope"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.visual = model.model.visual
        self.text = model.model.language_model
        self.merge = self.visual.spatial_merge_size
        self.patches = self.merge**2

    def _info(self) -> ModelInfo:
        vision, text = self.model.config.vision_config, self.model.config.text_config
        projector = {name: parameter.detach() for name, parameter in self.visual.merger.named_parameters()}
        return ModelInfo(
            family=self.model_type,
            vit_layers=vision.depth,
            llm_layers=text.num_hidden_layers,
            vit_width=vision.hidden_size,
            llm_width=text.hidden_size,
            unit_patches=self.patches,
            rope=self.rope,
            projector=projector,
            projector_hash=weights_hash({**projector, "embed_tokens": self.text.embed_tokens.weight.detach()}),
            folder=self.model.config._name_or_path or None,
        )

    def inputs(self, processed: Mapping[str, Any]) -> Inputs:
        ids = single_prompt(processed)
        return self._laid_out(ids, processed["pixel_values"], processed["image_grid_thw"].cpu())

    def _laid_out(self, host_ids: Tensor, pixels: Tensor, grid_thw: Tensor) -> Inputs:
        """The inputs of a prompt whose placeholders fit its images' grids."""
        grids = tuple((h // self.merge, w // self.merge) for _, h, w in grid_thw.tolist())
        counts = [rows * columns for rows, columns in grids]
        spans = image_spans(host_ids[0].tolist(), self.model.config.image_token_id, counts)
        types = torch.zeros_like(host_ids)
        for start, end in spans:
            types[:, start:end] = 1
        positions, _ = self.model.model.get_rope_index(host_ids, types, image_grid_thw=grid_thw)
        indices, weights = get_vision_interpolation_indices_and_weights(
            grid_thw,
            num_grid_per_side=self.visual.num_grid_per_side,
            mode=self.visual.interpolation_mode,
            align_corners=self.visual.interpolation_align_corners,
            spatial_merge_size=self.merge,
        )
        geometry = {
            "interp_indices": indices,
            "interp_weights": weights,
            "position_ids": get_vision_position_ids(grid_thw, self.merge),
            "image": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
            "unit": torch.cat([torch.arange(count) for count in counts]),
        }
        device = self.model.device
        return Inputs(
            prompt=Prompt(host_ids.to(device), positions[:, 0].to(device), spans),
            pixels=pixels.to(device),
            geometry={name: tensor.to(device) for name, tensor in geometry.items()},
            question_ids=self._question(host_ids[0], spans[-1][1]).to(device),
            shape=self._shape(grids),
        )

    def _shape(self, grids: tuple[tuple[int, int], ...]) -> Shape:
        vision, text = self.model.config.vision_config, self.model.config.text_config
        return Shape(
            grids,
            self.vit_layers,
            len(self.text.layers),
            self.patches,
            vit_head_width=vision.hidden_size // vision.num_heads,
            llm_head_width=text.head_dim,
        )

    def _question(self, ids: Tensor, after: int) -> Tensor:
        """Text of the user's last turn behind the last image: from the vision-end marker to the end-of-turn token.

        Where the image comes last, the text before it; where there is none, the end-of-turn token itself.
        """
        config = self.model.generation_config
        stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        markers = {self.model.config.vision_start_token_id, self.model.config.vision_end_token_id}
        markers.add(self.model.config.image_token_id)
        listed = ids.tolist()
        end = next((i for i in range(after, len(listed)) if listed[i] in stops), len(listed))
        question = [token for token in listed[after:end] if token not in markers]
        if not question:
            question = [token for token in listed[:after] if token not in markers and token not in stops]
        return torch.tensor(question or listed[-1:])

    def unit_pixels(self, inputs: Inputs, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        vision = self.visual.config
        side, m = vision.patch_size, self.merge
        patches = inputs.pixels.view(-1, m, m, 3, vision.temporal_patch_size, side, side)[:, :, :, :, 0]
        units = patches.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, m * side, m * side)  # (n, 3, u, u)
        scale, shift = (units.new_tensor(values).view(1, 3, 1, 1) for values in (std, mean))
        return (units * scale + shift).clamp(0, 1)

    def resized(
        self, inputs: Inputs, grids: tuple[tuple[int, int], ...], mean: Sequence[float], std: Sequence[float]
    ) -> Inputs:
        units = resampled(self.unit_pixels(inputs, mean, std), inputs.shape.grids, grids)
        scale, shift = (units.new_tensor(values).view(1, 3, 1, 1) for values in (std, mean))
        vision, m = self.visual.config, self.merge
        side, frames = vision.patch_size, vision.temporal_patch_size
        patches = ((units - shift) / scale).view(-1, 3, m, side, m, side).permute(0, 2, 4, 1, 3, 5)  # (n, m, m, 3, ...)
        pixels = patches[:, :, :, :, None].expand(-1, -1, -1, -1, frames, -1, -1).reshape(-1, inputs.pixels.shape[1])
        grid_thw = torch.tensor([[1, rows * m, columns * m] for rows, columns in grids])
        return self._laid_out(with_placeholders(inputs.prompt, grids).cpu(), pixels, grid_thw)

    def embed(self, inputs: Inputs, keep: Tensor | None) -> VisionState:
        geometry = dict(inputs.geometry)
        pixels, counts = inputs.pixels, list(inputs.shape.images)
        if keep is not None:
            patch = (keep[:, None] * self.patches + torch.arange(self.patches, device=keep.device)).flatten()
            pixels = pixels[patch]
            for name in ("interp_indices", "interp_weights", "position_ids"):
                geometry[name] = geometry[name][patch]
            for name in ("image", "unit"):
                geometry[name] = geometry[name][keep]
            counts = count_by_image(geometry["image"], len(counts))
        hidden = self.visual.patch_embed(pixels.to(self.visual.dtype))
        learned = (self.visual.pos_embed(geometry["interp_indices"]) * geometry["interp_weights"][:, :, None]).sum(1)
        hidden = hidden + learned.to(hidden.dtype)  # (N, d)
        cos, sin = self.visual.rotary_pos_emb(hidden, geometry["position_ids"])
        segments = tuple(Segment(0, count, False) for count in counts)
        size = torch.ones(geometry["unit"].shape[0], device=hidden.device)
        return VisionState(hidden, cos, sin, segments, geometry["unit"], geometry["image"], size, self.patches)

    def run_attention(self, number: int, state: VisionState) -> VisionState:
        block = self.visual.blocks[number]
        # sdpa and eager split by `cu_seqlens.tolist()`: on the host it costs no wait
        where = state.hidden.device if "flash" in self.kernels[0] else "cpu"
        bounds = torch.tensor([0, *state.lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(where)
        biases = [bias[None] for bias in state.key_bias()] if state.biased else None
        with TAP.biasing(block.attn, biases, self.kernels[0]) if biases else nullcontext():
            attended = block.attn(
                block.norm1(state.hidden),
                cu_seqlens=bounds,
                max_seqlen=max(state.lengths),
                position_embeddings=(state.cos, state.sin),
            )
        return replace(state, hidden=state.hidden + attended)

    def run_mlp(self, number: int, state: VisionState) -> VisionState:
        block = self.visual.blocks[number]
        state = replace(state, hidden=state.hidden + block.mlp(block.norm2(state.hidden)))
        return state.tapped() if number in self.visual.deepstack_visual_indexes else state

    def vision_attention(self, number: int) -> nn.Module:
        return self.visual.blocks[number].attn

    def project(self, state: VisionState) -> Features:
        _, units, aggregates = state.split(state.hidden)
        rows = state.outputs(units, aggregates)  # (n, g, d)
        deepstack = []
        for level, tap in enumerate(state.taps):
            tapped = state.outputs(tap.units[tap.rows], tap.aggregates)
            merged = self.visual.deepstack_merger_list[level](tapped.flatten(0, 1))
            deepstack.append(self._without_unborn(merged, state, tap.aggregates))
        return Features(self.visual.merger(rows.flatten(0, 1)), tuple(deepstack), rows)

    @staticmethod
    def _without_unborn(merged: Tensor, state: VisionState, aggregates: tuple[Tensor | None, ...]) -> Tensor:
        """An aggregate that did not exist at the tap adds nothing: its row is zero, not the merger's bias."""
        place, unborn = -1, []
        for segment, last in zip(state.segments, aggregates, strict=True):
            place += segment.units + segment.aggregate
            if segment.aggregate and last is None:
                unborn.append(place)
        if not unborn:
            return merged
        return merged.index_fill(0, torch.tensor(unborn, device=merged.device), 0.0)

    @property
    def vit_layers(self) -> int:
        return len(self.visual.blocks)

    @property
    def kernels(self) -> tuple[str, str]:
        return self.visual.config._attn_implementation, self.text.config._attn_implementation

    @property
    def decoder(self) -> Decoder:
        return Decoder(
            layers=self.text.layers,
            kernel=self.kernels[1],
            rotary_at=lambda positions, like: self.text.rotary_emb(like, positions[:, None]),
            position_rows=3,
        )

    def forward_arguments(self, prompt: Prompt, features: Features, counts: tuple[int, ...]) -> dict[str, Any]:
        order = torch.arange(prompt.length, device=prompt.positions.device)
        positions = torch.cat([order[None], prompt.positions])[:, None]  # (4, 1, T)
        outputs = BaseModelOutputWithDeepstackFeatures(
            pooler_output=features.tokens.split(counts),
            deepstack_features=[level.split(counts) for level in features.deepstack] or None,
        )
        return {
            "input_ids": prompt.input_ids,
            "attention_mask": torch.ones_like(prompt.input_ids),
            "position_ids": positions,
            "mm_encoder_outputs": {"image": outputs},
        }

    def deepstack_hook(self) -> tuple[nn.Module, str] | None:
        return self.text, "_deepstack_process"
