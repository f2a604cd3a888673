"""Qwen2.5-VL: windowed ViT with rotary positions, RMS norms and gated MLPs, 2x2 merger, M-RoPE in whole sections.

Most blocks attend within windows of 8 x 8 patches (112 px), those that the configuration names attend to whole images
(7, 15, 23 and 31 of 32). As natively, rows run window by window from the first block to the merger
(harness/models/families/qwen2_5_vl.py); methods see them in the prompt's order.

Signals of a windowed block: keys and queries as everywhere. Of rows only "received" ones, the mean over all patches of
the image, of which those in other windows give nothing; what one query sees of the whole image is known in blocks of
full attention alone. VisionZip and VisPruner read block 31, QuietPrune blocks 7, 15 and 23, which are such blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_window_index

from harness.models.attention import Capture
from harness.models.families.family import Features, Inputs
from harness.models.families.qwen_vl import QwenVL
from harness.models.prompt import Prompt
from harness.models.signals import vit_signal, window_signal
from harness.models.vision_state import NOWHERE, VisionState
from methods.base import Signal


# A window keeps its members: after a cut it holds those of its units that are left, and one without any is gone. A
# method's own tokens ([Q-CLS]) and an aggregate belong to no place of the picture: in a windowed block the extra tokens
# of an image are a window of their own, and so is its aggregate.
@dataclass(frozen=True)
class WindowedState(VisionState):
    """A vision state that knows its windows.

    window (N,): of every unit that the prompt had, image after image, numbered through; sizes: how many of these each
    window had. first: where each image's units begin among the N.
    windows: tokens of each sequence that attends to itself in a windowed block; () while rows stand in the prompt's
    order. back (n,): where the rows of the prompt's order stand now.
    """

    window: Tensor = NOWHERE
    sizes: tuple[int, ...] = ()
    first: Tensor = NOWHERE
    windows: tuple[int, ...] = ()
    back: Tensor = NOWHERE

    def by_window(self) -> WindowedState:
        """The same rows window by window, each in the order in which they stood. Waits for the device once a cut."""
        if self.windows:
            return self
        window = self.window[self.first[self.image] + self.unit // self.packs]  # (n,)
        order = torch.argsort(window, stable=True)
        rows = [size * self.packs for size in self.sizes]
        if order.shape[0] != sum(rows):
            rows = torch.bincount(window, minlength=len(rows)).tolist()
        return replace(self._ordered(order), windows=self._lengths(rows), back=torch.argsort(order))

    def in_order(self) -> WindowedState:
        if not self.windows:
            return self
        return replace(self._ordered(self.back), windows=(), back=NOWHERE)

    def _ordered(self, order: Tensor) -> WindowedState:
        """Rows in another order, images apart as they were."""
        assert not self.taps
        tables = {name: self._moved(getattr(self, name), order) for name in ("hidden", "cos", "sin")}
        return replace(self, **tables, **{name: getattr(self, name)[order] for name in ("unit", "image", "size")})

    def _moved(self, packed: Tensor, order: Tensor) -> Tensor:
        fronts, rows, aggregates = self.split(packed)
        return self.join(fronts, rows[order], aggregates)

    def _lengths(self, rows: list[int]) -> tuple[int, ...]:
        """Tokens of each window of today, image after image; `rows` of each window that there ever was."""
        lengths, waiting = [], iter(rows)
        for segment in self.segments:
            lengths.append(segment.front)
            missing = segment.units
            while missing:
                alive = next(waiting)
                lengths.append(alive * self.patches)
                missing -= alive
            lengths.append(int(segment.aggregate))
        return tuple(length for length in lengths if length)


class Qwen25VL(QwenVL):
    model_type = "qwen2_5_vl"

    def _geometry(self, grid_thw: Tensor) -> dict[str, Tensor]:
        index, bounds = get_vision_window_index(
            grid_thw,
            spatial_merge_size=self.merge,
            window_size=self.visual.window_size,
            patch_size=self.visual.patch_size,
        )
        sizes = bounds.diff() // self.patches
        window = torch.repeat_interleave(torch.arange(len(sizes)), sizes)[torch.argsort(index)]
        units = grid_thw.prod(1) // self.patches
        device = self.model.device
        return {
            "window": window.to(device),
            "first": (units.cumsum(0) - units).to(device),
            "window_sizes": sizes,  # stays on the host
        }

    def embed(self, inputs: Inputs, keep: Tensor | None) -> WindowedState:
        state, geometry = super().embed(inputs, keep), inputs.geometry
        return WindowedState(
            **{part.name: getattr(state, part.name) for part in fields(state)},
            window=geometry["window"],
            sizes=tuple(geometry["window_sizes"].tolist()),
            first=geometry["first"],
        )

    def attention_lengths(self, number: int, state: VisionState) -> tuple[int, ...]:
        assert isinstance(state, WindowedState) and state.windows
        return state.lengths if self._is_full(number) else state.windows

    def _is_full(self, number: int) -> bool:
        return number in self.visual.fullatt_block_indexes

    def run_attention(self, number: int, state: VisionState) -> VisionState:
        assert isinstance(state, WindowedState)
        return super().run_attention(number, state.by_window())

    def vision_signal(self, signal: Signal, state: VisionState, captures: list[Capture]) -> Tensor:
        assert isinstance(state, WindowedState)
        if self._is_full(signal.layer):
            values = vit_signal(signal, state, captures)
        else:
            values = window_signal(signal, state, captures, state.windows)
        rows = 0 if signal.kind in ("queries", "keys") else values.ndim - 2
        aggregates = torch.arange(state.back.shape[0], values.shape[rows], device=values.device)
        return values.index_select(rows, torch.cat([state.back, aggregates]))

    def project(self, state: VisionState) -> Features:
        _, units, aggregates = state.split(state.hidden)
        rows = state.outputs(units, aggregates)  # (n, g, d)
        return Features(self.visual.merger(rows.flatten(0, 1)), (), rows)

    def forward_arguments(self, prompt: Prompt, features: Features, counts: tuple[int, ...]) -> dict[str, Any]:
        return self._arguments(prompt, BaseModelOutputWithPooling(pooler_output=features.tokens.split(counts)))

    def deepstack_hook(self) -> None:
        return None
