"""Qwen3-VL: ViT with learned + rotary positions, 2x2 merger, DeepStack, M-RoPE with interleaved sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from harness.models.families.family import Features
from harness.models.families.qwen_vl import QwenVL
from harness.models.prompt import Prompt
from harness.models.vision_state import VisionState


class Qwen3VL(QwenVL):
    model_type = "qwen3_vl"
    per_patch = ("position_ids", "interp_indices", "interp_weights")

    def _geometry(self, grid_thw: Tensor) -> dict[str, Tensor]:
        indices, weights = get_vision_interpolation_indices_and_weights(
            grid_thw,
            num_grid_per_side=self.visual.num_grid_per_side,
            mode=self.visual.interpolation_mode,
            align_corners=self.visual.interpolation_align_corners,
            spatial_merge_size=self.merge,
        )
        device = self.model.device
        return {"interp_indices": indices.to(device), "interp_weights": weights.to(device)}

    def _placed(self, hidden: Tensor, geometry: Mapping[str, Tensor]) -> Tensor:
        learned = (self.visual.pos_embed(geometry["interp_indices"]) * geometry["interp_weights"][:, :, None]).sum(1)
        return hidden + learned.to(hidden.dtype)

    def run_mlp(self, number: int, state: VisionState) -> VisionState:
        state = super().run_mlp(number, state)
        return state.tapped() if number in self.visual.deepstack_visual_indexes else state

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

    def forward_arguments(self, prompt: Prompt, features: Features, counts: tuple[int, ...]) -> dict[str, Any]:
        outputs = BaseModelOutputWithDeepstackFeatures(
            pooler_output=features.tokens.split(counts),
            deepstack_features=[level.split(counts) for level in features.deepstack] or None,
        )
        return self._arguments(prompt, outputs)

    def deepstack_hook(self) -> tuple[nn.Module, str] | None:
        return self.text, "_deepstack_process"
