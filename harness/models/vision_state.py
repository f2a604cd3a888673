"""The state of a ViT while it runs on a shrinking set of units, and what a selection does to it.

Packed layout, image after image: [extra tokens][prefix tokens][rows x g patches][aggregate, at most one token]. A row
is a unit of g patches, or one patch for a method of patch granularity. Extra tokens are the method's ([Q-CLS]), prefix
tokens the tower's own (CLS). Counts are known on the host, so that nothing waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from methods.base import AGGREGATE, PREFIX, VISUAL, InvalidSelection
from methods.selection import Selection, aggregate, reduce, reduce_sizes

NOWHERE = torch.empty(0, dtype=torch.int64)  # no rows


@dataclass(frozen=True)
class Segment:
    """Tokens of one image (or tile): attention never crosses images. units: rows, of `VisionState.patches` each.

    prefix: tokens of the tower itself (CLS), which `embed` sets. They are never pruned in the ViT and end with it,
    unless harness/models/rows.py hands them on. padding: patches behind no visual token; the first cut ends them.
    """

    extra: int
    units: int
    aggregate: bool
    prefix: int = 0
    padding: int = 0

    @property
    def front(self) -> int:
        return self.extra + self.prefix + self.padding

    def tokens(self, patches: int) -> int:
        return self.front + self.units * patches + self.aggregate


@dataclass(frozen=True)
class VisionTap:
    """Hidden states taken for DeepStack: all units alive there, and where today's survivors stand among them."""

    units: Tensor  # (n_then, g, d)
    rows: Tensor  # (n_now,) int64
    aggregates: tuple[Tensor | None, ...]  # one (d,) an image


@dataclass(frozen=True)
class VisionState:
    """hidden (N, d), cos / sin (N, head_dim) packed as above; unit, image, size (n,) of the rows alive.

    cos, sin: None in towers without rotation. patches: of one row; packs: how many rows make a unit, 1 unless rows are
    single patches, whose `unit` is then unit x packs + place in the unit. biased: log(size) is added to the attention
    logits of the keys from the next block on. owners: the image of each segment where an image has several (tiles),
    None = one each; an image's aggregate stands in its first. blanks (b, 2): image and unit of visual tokens that are
    no tokens here (newlines).
    """

    hidden: Tensor
    cos: Tensor | None
    sin: Tensor | None
    segments: tuple[Segment, ...]
    unit: Tensor
    image: Tensor
    size: Tensor
    patches: int
    taps: tuple[VisionTap, ...] = field(default=())
    packs: int = 1
    biased: bool = False
    owners: tuple[int, ...] | None = None
    blanks: Tensor | None = None

    @property
    def tile(self) -> Tensor:
        """(n,) the segment of each row."""
        if self.owners is None:
            return self.image
        counts = torch.tensor([segment.units for segment in self.segments], device=self.unit.device)
        places = torch.arange(len(self.segments), device=self.unit.device)
        return torch.repeat_interleave(places, counts, output_size=self.unit.shape[0])

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(segment.tokens(self.patches) for segment in self.segments)

    def in_order(self) -> VisionState:
        """The same state with its rows in the order of the prompt, as views, selections and projectors need them."""
        return self

    def split(self, packed: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor | None]]:
        """A packed tensor (N, ...) as fronts (extra and prefix tokens, one tensor an image), rows (n, g, ...) and
        aggregates (one or None)."""
        extras, units, aggregates = [], [], []
        for segment, part in zip(self.segments, packed.split(self.lengths), strict=True):
            end = segment.front + segment.units * self.patches
            extras.append(part[: segment.front])
            units.append(part[segment.front : end].unflatten(0, (segment.units, self.patches)))
            aggregates.append(part[end] if segment.aggregate else None)
        return extras, torch.cat(units), aggregates

    def join(self, extras: list[Tensor], units: Tensor, aggregates: list[Tensor | None]) -> Tensor:
        """The inverse of `split`, for this state's segments."""
        parts = []
        per_image = units.split([segment.units for segment in self.segments])
        for extra, rows, last in zip(extras, per_image, aggregates, strict=True):
            parts += [extra, rows.flatten(0, 1)] + ([last[None]] if last is not None else [])
        return torch.cat(parts)

    def rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What a view shows: hidden (n + a, g, d), image, unit, kind, size; the a aggregates stand last."""
        _, units, aggregates = self.split(self.hidden)
        owners = self.owners or range(len(self.segments))
        carried = [(image, row) for image, row in zip(owners, aggregates, strict=True) if row is not None]
        hidden = torch.cat([units, *(row.expand(1, self.patches, -1) for _, row in carried)])
        device = units.device
        image = torch.cat([self.image, torch.tensor([i for i, _ in carried], dtype=torch.int64, device=device)])
        unit = torch.cat([self.unit, torch.full((len(carried),), -1, device=device)])
        kind = torch.where(unit < 0, PREFIX, VISUAL)
        kind[self.unit.shape[0] :] = AGGREGATE
        size = torch.cat([self.size, torch.ones(len(carried), device=device)])
        return hidden, image, unit, kind, size

    def with_extra(self, tokens: list[Tensor]) -> VisionState:
        """Extra tokens (e, d), one tensor an image, in front of each image; rotated by nothing (angle 0)."""
        extras, units, aggregates = self.split(self.hidden)
        segments = tuple(
            replace(segment, extra=segment.extra + new.shape[0])
            for segment, new in zip(self.segments, tokens, strict=True)
        )
        grown = replace(self, segments=segments)
        hidden = grown.join(
            [torch.cat([new.to(old.dtype), old]) for old, new in zip(extras, tokens, strict=True)], units, aggregates
        )
        return replace(
            grown, hidden=hidden, cos=self._grown(grown, self.cos, 1.0), sin=self._grown(grown, self.sin, 0.0)
        )

    def _grown(self, grown: VisionState, table: Tensor | None, value: float) -> Tensor | None:
        if table is None:
            return None
        extras, units, aggregates = self.split(table)
        wider = [
            torch.cat([table.new_full((segment.front - old.shape[0], table.shape[1]), value), old])
            for segment, old in zip(grown.segments, extras, strict=True)
        ]
        return grown.join(wider, units, aggregates)

    def tapped(self) -> VisionState:
        """This state with its present hidden states remembered for DeepStack."""
        _, units, aggregates = self.split(self.hidden)
        tap = VisionTap(units, torch.arange(units.shape[0], device=units.device), tuple(aggregates))
        return replace(self, taps=(*self.taps, tap))

    def select(self, selection: Selection, kept: list[int]) -> VisionState:
        """The state after a selection over `rows()`. kept: units alive in each segment afterwards, in their order."""
        n = self.unit.shape[0]
        rows, image, _, _, size = self.rows()
        _check_grouped(selection, n)
        segments, aggregates = [], []
        gathering = self._gathering(kept) if selection.aggregate is not None else {}
        for place, (segment, alive) in enumerate(zip(self.segments, kept, strict=True)):
            index = gathering.get(place)
            gathers = index is not None
            if gathers:
                assert selection.aggregate is not None
                # it stands for its whole image: rows of all tiles weigh in it, though it lives in the first alone
                mine = (image == index).view(-1, *[1] * (selection.aggregate.ndim - 1))
                aggregates.append(aggregate(selection.aggregate * mine, rows))
            else:
                aggregates.append(None)
            # padding ends here: no row of a view stands for it, so that no method could have kept it
            segments.append(replace(segment, units=alive, aggregate=gathers, padding=0))
        smaller = replace(
            self,
            segments=tuple(segments),
            unit=self.unit[selection.keep],
            image=self.image[selection.keep],
            size=reduce_sizes(selection, size),
            taps=tuple(self._tap_after(tap, selection) for tap in self.taps),
            biased=self.biased or selection.key_bias,
        )
        extras, _, _ = self.split(self.hidden)
        return replace(
            smaller,
            hidden=smaller.join(self._without_padding(extras), reduce(selection, rows), aggregates),
            # merged or not, a slot keeps the rotation of its representative; an aggregate, of no place, is not rotated
            cos=self._gathered(smaller, self.cos, selection.keep, 1.0),
            sin=self._gathered(smaller, self.sin, selection.keep, 0.0),
        )

    def _gathering(self, kept: list[int]) -> dict[int, int]:
        """Segment -> image, for images that lose units or hold an aggregate already; the first segment of each."""
        owners, found = self.owners or tuple(range(len(kept))), {}
        for image in dict.fromkeys(owners):
            mine = [place for place, owner in enumerate(owners) if owner == image]
            # one that holds an aggregate gets a new one even if it loses nothing more: what it carries is folded on
            if any(kept[place] < self.segments[place].units or self.segments[place].aggregate for place in mine):
                found[mine[0]] = image
        return found

    def _without_padding(self, fronts: list[Tensor]) -> list[Tensor]:
        return [front[: s.extra + s.prefix] for front, s in zip(fronts, self.segments, strict=True)]

    def _tap_after(self, tap: VisionTap, selection: Selection) -> VisionTap:
        """A tap after a selection: what merges now is merged with the same weights among the states of that time."""
        if selection.assign is None:
            return replace(tap, rows=tap.rows[selection.keep])  # no row is copied until the tap is read
        # an aggregate that came after the tap has no state of that time: it takes its place among the rows as zeros
        nothing = tap.units.new_zeros(tap.units.shape[-1])
        carried = [
            (nothing if row is None else row).expand(1, self.patches, -1)
            for row, segment in zip(tap.aggregates, self.segments, strict=True)
            if segment.aggregate
        ]
        merged = reduce(selection, torch.cat([tap.units[tap.rows], *carried]))
        return replace(tap, units=merged, rows=torch.arange(merged.shape[0], device=merged.device))

    def _gathered(self, smaller: VisionState, table: Tensor | None, keep: Tensor, angle_zero: float) -> Tensor | None:
        if table is None:
            return None
        extras, units, _ = self.split(table)
        still = table.new_full((table.shape[1],), angle_zero)
        aggregates = [still if segment.aggregate else None for segment in smaller.segments]
        return smaller.join(self._without_padding(extras), units[keep], aggregates)

    def key_bias(self) -> list[Tensor]:
        """log(size) of each token, (tokens,) an image; 0 for extra, prefix and aggregate tokens."""
        per_image = (
            self.size.log()
            .repeat_interleave(self.patches)
            .split([segment.units * self.patches for segment in self.segments])
        )
        return [
            torch.nn.functional.pad(rows, (segment.front, int(segment.aggregate)))
            for segment, rows in zip(self.segments, per_image, strict=True)
        ]

    def outputs(self, units: Tensor, aggregates: list[Tensor | None] | tuple[Tensor | None, ...]) -> Tensor:
        """Units (n, g, d) and the aggregates of this state's images as projector input (rows, g, d), image by image.

        An aggregate is one token: it fills all g patches. One that does not exist yet becomes zeros.
        """
        parts = []
        per_image = units.split([segment.units for segment in self.segments])
        for segment, rows, last in zip(self.segments, per_image, aggregates, strict=True):
            parts.append(rows)
            if segment.aggregate:
                row = units.new_zeros(units.shape[-1]) if last is None else last
                parts.append(row.expand(1, self.patches, -1))
        return torch.cat(parts)


def _check_grouped(selection: Selection, n: int) -> None:
    if selection.keep.device.type == "cpu" and selection.keep.numel() and int(selection.keep.max()) >= n:
        raise InvalidSelection("keep names an aggregate row; give it a weight in `aggregate` instead")


def count_by_image(image: Tensor, images: int) -> list[int]:
    """Units of each image; one image needs no wait for the device."""
    return [image.shape[0]] if images == 1 else torch.bincount(image, minlength=images).tolist()
