"""Visual tokens of a prompt that are no ViT tokens: LLaVA-NeXT's newlines, one at the end of each row of patches.

Every one counts as a visual token. At the interface and in the LLM they are rows like any other: their hidden state is
the newline's embedding, their values in ViT signals and projector inputs are zero. In front of the interface they do
not exist. Where a method prunes there they give way first: patches take what the budget allows, newlines the rest of
it, from the first row on. Below some 98 % that is none.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.models.families.family import Slots
from harness.models.interface import Visual, select
from methods.base import Selection, Signal


def with_room(visual: Visual, tokens: int, from_vit: int) -> Visual:
    """At most `tokens` rows, `from_vit` of which are ViT tokens and stay; then as many of the others as fit."""
    spare = visual.rows.n - max(tokens, from_vit)
    slots = visual.features.slots
    if spare <= 0 or slots is None:
        return visual
    blank = torch.nonzero(slots.source < 0).flatten()
    stays = torch.ones_like(slots.source, dtype=torch.bool).index_fill(0, blank[blank.shape[0] - spare :], False)
    keep = torch.nonzero(stays).flatten()
    shorter = select(visual, Selection(keep))
    pre_projector = visual.features.pre_projector[keep]
    slots = Slots(shorter.rows, slots.source[keep])
    return replace(shorter, features=replace(shorter.features, pre_projector=pre_projector, slots=slots))


def signal_of_slots(signal: Signal, values: Tensor, source: Tensor) -> Tensor:
    """A ViT signal over the rows of the state as one over the visual tokens, zeros where no ViT token stands behind."""
    return of_slots(values, source, 0 if signal.kind in ("queries", "keys") else values.ndim - 2)


def of_slots(values: Tensor, source: Tensor, dim: int = 0) -> Tensor:
    """values[source] along a dimension, zeros where source is -1."""
    gathered = values.index_select(dim, source.clamp_min(0))
    shape = [-1 if d == dim else 1 for d in range(values.ndim)]
    return gathered * (source >= 0).view(shape)
