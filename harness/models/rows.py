"""The same tokens of a ViT as other rows: units as single patches and back, and the tower's CLS token as a row."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.models.vision_state import VisionState, VisionTap
from methods.base import InvalidSelection


def as_patches(state: VisionState) -> VisionState:
    """Each patch a row of its own."""
    g = state.patches
    place = torch.arange(g, device=state.unit.device)
    return replace(
        state,
        segments=tuple(replace(segment, units=segment.units * g) for segment in state.segments),
        unit=(state.unit[:, None] * g + place).flatten(),
        image=state.image.repeat_interleave(g),
        size=state.size.repeat_interleave(g),
        patches=1,
        packs=g,
    )


def packed(state: VisionState) -> VisionState:
    """Rows of single patches as units again, `packs` at a time in the order they stand in, image by image.

    A unit stands where its first patch stood. DeepStack's taps follow. Raises InvalidSelection for a remainder.
    """
    g = state.packs
    for index, segment in enumerate(state.segments):
        if segment.units % g or segment.aggregate:
            raise InvalidSelection(
                f"image {index} leaves the ViT with {segment.units} patches"
                f"{' and an aggregate' if segment.aggregate else ''}; the merger takes whole units of {g} patches"
            )
    return replace(
        state,
        segments=tuple(replace(segment, units=segment.units // g) for segment in state.segments),
        unit=state.unit[::g] // g,
        image=state.image[::g],
        size=state.size.view(-1, g).mean(1),
        taps=tuple(_packed_tap(tap, g) for tap in state.taps),
        patches=g,
        packs=1,
    )


def _packed_tap(tap: VisionTap, g: int) -> VisionTap:
    units = tap.units[tap.rows].view(-1, g, tap.units.shape[-1])
    return replace(tap, units=units, rows=torch.arange(units.shape[0], device=units.device))


def with_cls_rows(state: VisionState) -> VisionState:
    """Each image's prefix tokens as its first rows, unit -1; for units of one patch, without DeepStack."""
    # one token is a row only where a unit is one patch; a DeepStack tap holds units alone, a CLS row has none there
    assert state.patches == 1 and not state.taps
    counts = [segment.units for segment in state.segments]

    def behind(values: Tensor, fronts: list[int]) -> Tensor:
        pieces = []
        for part, segment, front in zip(values.split(counts), state.segments, fronts, strict=True):
            pieces += [part.new_full((segment.prefix,), front), part]
        return torch.cat(pieces)

    images = len(counts)
    return replace(
        state,
        segments=tuple(replace(s, units=s.units + s.prefix, prefix=0) for s in state.segments),
        unit=behind(state.unit, [-1] * images),
        image=behind(state.image, list(range(images))),
        size=behind(state.size, [1] * images),
    )
