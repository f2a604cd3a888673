"""The prompt as the LLM sees it: where the visual tokens stand, before and after the interface.

Everything is for one prompt (batch 1). n visual tokens, T tokens; positions have R rows: 1 for plain RoPE, 3 for
M-RoPE (time, height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import AGGREGATE


@dataclass(frozen=True)
class VisualRows:
    """Visual tokens in prompt order. All (n,): image, unit (-1 = aggregate), kind, size; features (n, d) if known."""

    image: Tensor
    unit: Tensor
    kind: Tensor
    size: Tensor
    counts: tuple[int, ...]  # tokens of each image, on the host

    @property
    def n(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class Prompt:
    """A prompt whose images occupy `spans` (start, end) of input_ids (1, T); positions (R, T)."""

    input_ids: Tensor
    positions: Tensor
    spans: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        return self.input_ids.shape[1]

    @property
    def visual_index(self) -> Tensor:
        """(n,) where the visual tokens stand in the prompt."""
        device = self.input_ids.device
        return torch.cat([torch.arange(start, end, device=device) for start, end in self.spans])


def shorten(prompt: Prompt, rows: VisualRows, positions: str | Tensor) -> Prompt:
    """The prompt with each image's placeholders replaced by its surviving rows.

    positions: "original" (a survivor keeps its own; an aggregate takes the rounded mean of the units that are gone),
    "renumber" (0..T'-1 in every row) or the ids themselves, (n,) or (R, n).
    """
    given = None if isinstance(positions, str) else positions.view(-1, rows.n).expand(prompt.positions.shape[0], -1)
    ids, where, spans = [], [], []
    length = cursor = offset = 0
    for (start, end), count in zip(prompt.spans, rows.counts, strict=True):
        ids += [prompt.input_ids[:, cursor:start], prompt.input_ids[:, start : start + 1].expand(1, count)]
        mine = slice(offset, offset + count)
        kept = (
            given[:, mine]
            if given is not None
            else _positions_of(prompt.positions[:, start:end], rows.unit[mine], rows.kind[mine])
        )
        where += [prompt.positions[:, cursor:start], kept.to(prompt.positions.dtype)]
        length += start - cursor
        spans.append((length, length + count))
        length, cursor, offset = length + count, end, offset + count
    ids.append(prompt.input_ids[:, cursor:])
    where.append(prompt.positions[:, cursor:])
    short = Prompt(torch.cat(ids, dim=1), torch.cat(where, dim=1), tuple(spans))
    if isinstance(positions, str) and positions == "renumber":
        numbers = torch.arange(short.length, device=short.positions.device)
        return Prompt(short.input_ids, numbers.expand(short.positions.shape[0], -1), short.spans)
    return short


def with_placeholders(prompt: Prompt, grids: Sequence[tuple[int, int]]) -> Tensor:
    """Ids (1, T') of the prompt with rows x columns placeholders for each image."""
    ids, cursor = [], 0
    for (start, end), (rows, columns) in zip(prompt.spans, grids, strict=True):
        ids += [prompt.input_ids[:, cursor:start], prompt.input_ids[:, start : start + 1].expand(1, rows * columns)]
        cursor = end
    return torch.cat([*ids, prompt.input_ids[:, cursor:]], dim=1)


def _positions_of(original: Tensor, unit: Tensor, kind: Tensor) -> Tensor:
    """Positions (R, k) of an image's rows; original: (R, n) of all its units."""
    is_aggregate = kind == AGGREGATE
    own = original[:, unit.clamp_min(0)]  # (R, k)
    alive = (own * ~is_aggregate).sum(1, keepdim=True)
    gone = original.shape[1] - (~is_aggregate).sum()
    centre = ((original.sum(1, keepdim=True) - alive).float() / gone.clamp_min(1)).round().to(original.dtype)  # (R, 1)
    return torch.where(is_aggregate, centre, own)


def image_spans(input_ids: Sequence[int], placeholder: int, counts: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Where each image stands, by expected counts (adjacent images would fuse in runs of placeholders).

    Raises ValueError when the prompt has another number of placeholders than the images have tokens.
    """
    places = [index for index, token in enumerate(input_ids) if token == placeholder]
    if len(places) != sum(counts):
        raise ValueError(f"the prompt has {len(places)} image placeholders, the images have {sum(counts)} tokens")
    spans, cursor = [], 0
    for count in counts:
        spans.append((places[cursor], places[cursor] + count))
        cursor += count
    return tuple(spans)
