"""HiRED: tokens for the parts of an image by what the first ViT block looks at, the best of each by what the last does.

Paper: Arif et al., "HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution Vision-Language
Models", AAAI 2025, arXiv:2408.10945. The authors' code (hasanar1f/HiRED @ 502d6dd) is MIT; nothing here is taken from
it. Written from a description of what it does, and compared with its outputs in tests/golden.

Score of a token: the attention of CLS in the layer whose output the projector takes, summed over heads. An image that
the tower sees whole keeps its highest. A picture that it sees in tiles (LLaVA-NeXT) spends `alpha` of its k tokens on
the base tile, which shows all of it, and the rest on the other tiles in proportion to their content: of the
int(N (1 - alpha)) places of the base tile that CLS of the first block attends to most, how many lie in a tile's part.
As released a part is a run of the base tile's raster list (stripes, not quadrants); content="paper" is the sum of the
first block's attention over the rectangle that the tile shows. Survivors stay in raster order, base tile first.

Ours: exact budgets. What tiles' quotas leave over goes to the largest remainders; what a tile cannot take, to those
with room, one token each in rounds. In native runs both are lost, as released: up to t - 2 tokens, and more where a
quota is larger than a tile.

Departures
* The choice is among patches that are shown (theirs spends tokens on the padding of tiles, which is cut off later), and
  tiles stand where they belong (theirs takes rows for columns where a picture has not as many of both). Newlines
  are kept after all patches only (theirs drops them).
* The tiles of InternVL are images of their own here, which keep their highest in proportion to size: a view does not
  say which of them are of one picture. The authors know no such model.
* A ViT without CLS (Qwen's): the mean attention that a patch receives. Where several patches make one token, the mean.
* Several images each have their own survivors (theirs, LLaVA-1.5: those of the first for all), and share a budget by
  size. Scores are float32 (theirs: the model's dtype); ties go to the lower index (theirs: none).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from methods.base import INTERFACE, Budget, Plan, Pruner, PruningError, Range, Selection, Shape, Signal, View
from methods.ops import share, top_k


@dataclass(frozen=True)
class HiRED(Pruner):
    """rate: kept share of the tower's patches in native runs. alpha: the base tile's share of them. content: of a tile,
    as "released" | as in the "paper"."""

    name = "hired"
    title = "HiRED"
    paper = "arXiv:2408.10945"
    licence = "MIT (not used here: independent implementation)"
    hooks = (INTERFACE,)
    cost = "an attention row of one ViT block, of two where it sees tiles: O(n d); O(n^2 d) without CLS"
    positions = "renumber"
    synchronises = "in native runs on tiles: how many tokens the quotas leave is in the picture"
    presets: ClassVar = {
        "40": {"rate": 0.4},
        "t192": {"rate": 1 / 3},
        "t128": {"rate": 2 / 9},
        "t64": {"rate": 1 / 9},
        "paper": {"content": "paper"},
    }

    rate: Annotated[float, Range(0, 1, above=True)] = 0.2
    alpha: Annotated[float, Range(0, 1)] = 0.5
    content: Literal["released", "paper"] = "released"

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native" and not shape.tiles:
            budget = Budget("layer_average", max(1, sum(int(n * self.rate) for n in shape.images)))
        return super().plan(budget, shape)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        queries, last = "cls" if shape.vit_cls else "received", shape.vit_layers - 1
        blocks = dict.fromkeys((last, 0)) if shape.tiles else (last,)
        return tuple(Signal("rows", "vit", block, queries) for block in blocks)

    def at_interface(self, view: View) -> Selection:
        shape, needs = view.shape, self.needs(view.shape)
        last, first = (view.signal(need).mean(dim=1) for need in (needs[0], needs[-1]))  # (n,) each
        kept, start = [], 0
        if not shape.tiles:
            for score, k in zip(last.split(shape.images), share(view.keep, shape.images), strict=True):
                kept.append(start + top_k(score, k))
                start += len(score)
            return Selection(torch.cat(kept))
        sizes = [base + rest for base, rest in zip(shape.images[::2], shape.images[1::2], strict=True)]
        shares = [None] * len(sizes) if view.keep is None else share(view.keep, tuple(sizes))
        for number, (score, early, k) in enumerate(zip(last.split(sizes), first.split(sizes), shares, strict=True)):
            kept.append(start + self.of_picture(score, early, Tiles.of(shape, 2 * number + 1), k))
            start += len(score)
        return Selection(torch.cat(kept))

    def of_picture(self, score: Tensor, early: Tensor, tiles: Tiles, k: int | None) -> Tensor:
        """Places of a picture's rows that stay, ascending. score, early: (n,) of the last and the first block.

        k: how many; None: as released, which waits for the device.
        """
        patches = tiles.side**2  # of the base tile, which comes first
        asked = int((1 + len(tiles.shown)) * patches * self.rate) if k is None else k
        base = min(int(asked * self.alpha), patches)
        if k is None:
            rest = min(asked - base, len(tiles.shown) * patches)
        else:
            base = max(base, k - (len(score) - patches))
            rest = k - base
        tile, device = tiles.of_rows(score.device), score.device  # (rows behind the base tile,), -1: a newline
        content = self.contents(early[:patches], tiles)
        exact = content / content.sum().clamp_min(torch.finfo(torch.float32).tiny) * rest
        quota = exact.long()
        order = torch.sort(score[patches:], descending=True, stable=True).indices
        order = order[torch.sort(tile[order], stable=True).indices]  # newlines, then tile by tile, best first
        runs = (len(tile) - sum(tiles.shown), *tiles.shown)
        rank = torch.cat([torch.arange(run, device=device) for run in runs])
        rank = torch.empty_like(rank).index_copy(0, order, rank)
        blank = tile < 0
        if k is None:
            inside = torch.nonzero((rank < quota[tile]) & ~blank).flatten()
        else:
            standing = torch.argsort(torch.sort(exact - quota, descending=True, stable=True).indices)
            beyond = rank - quota[tile]  # < 0: within the quota; the first round is that of the largest remainders
            place = torch.where(beyond < 0, 0, 1 + beyond * len(quota) + standing[tile])
            place = torch.where(blank, len(tile) * (1 + len(quota)), place)
            inside = torch.sort(place, stable=True).indices[:rest].sort().values
        return torch.cat([top_k(score[:patches], base), patches + inside])

    def contents(self, early: Tensor, tiles: Tiles) -> Tensor:
        """(tiles,) float32, unscaled, of each tile beside the base one. early: (N,) of the base tile."""
        n, count = len(early), len(tiles.shown)
        if self.content == "paper":
            by_row = early.view(tiles.side, tiles.side).tensor_split(tiles.rows, dim=0)
            return torch.stack([part.sum() for rows in by_row for part in rows.tensor_split(tiles.columns, dim=1)])
        looked_at = torch.zeros_like(early).index_fill(0, top_k(early, int(n * (1 - self.alpha))), 1)
        return torch.stack([run.sum() for run in looked_at.tensor_split(count)])


@dataclass(frozen=True)
class Tiles:
    """Arrangement of the tiles of a picture beside its base tile. side: patches of a whole tile; heights, widths:
    rows and columns that each row and column of tiles shows, the others are padding."""

    side: int
    heights: tuple[int, ...]
    widths: tuple[int, ...]

    @classmethod
    def of(cls, shape: Shape, image: int) -> Tiles:
        """Read off the numbers of patches that tiles show; what is cut off as padding is half at either end."""
        rows, columns = shape.vit_grids[image]
        shown = [units for owner, _, units in shape.tiles if owner == image]
        side = isqrt(next(patches for owner, patches, _ in shape.tiles if owner == image))
        for down in range(1, len(shown) + 1):
            tiles = cls(side, _uncut(down, side, rows), _uncut(len(shown) // down, side, columns))
            if list(tiles.shown) == shown:
                return tiles
        raise PruningError(f"hired cannot tell how tiles that show {shown} patches make {rows} x {columns}")

    @property
    def rows(self) -> int:
        return len(self.heights)

    @property
    def columns(self) -> int:
        return len(self.widths)

    @property
    def shown(self) -> tuple[int, ...]:
        return tuple(height * width for height in self.heights for width in self.widths)

    def of_rows(self, device: torch.device) -> Tensor:
        """The tile of each row of a view, raster by raster of the whole picture; -1: the newline behind a line."""
        down = [torch.full((height, 1), i * self.columns, device=device) for i, height in enumerate(self.heights)]
        across = [torch.full((width,), i, device=device) for i, width in enumerate(self.widths)]
        tile = torch.cat(down) + torch.cat(across)  # (rows, columns)
        return torch.cat([tile, torch.full((len(tile), 1), -1, device=device)], dim=1).flatten()


def _uncut(tiles: int, side: int, shown: int) -> tuple[int, ...]:
    """Patches of each of some tiles in a line that lie in the middle `shown` of all tiles x side."""
    first = (tiles * side - shown) // 2
    return tuple(max(0, min(i * side + side, first + shown) - max(i * side, first)) for i in range(tiles))
