"""V-PRUNE: drop image regions whose colours repeat those of a neighbour, before anything is tokenised.

Paper: Seo and Choi, "V-PRUNE", Appl. Sci. 2025, 15(17), 9463, doi 10.3390/app15179463. No code was published and the
text leaves much open: this is a reimplementation of an under-specified paper. Its published operating point prunes
13-37 % of the tokens (what its tables call "FLOPs ratio" is the pruned share); 50 % and less is outside its regime.

Fixed by the paper: it acts on pixels, sees no question, needs no training; the units of a 2x2 group (3x3 and 4x4
were tried) are compared pairwise by the chi-square distance of their histograms (small = redundant; thresholds 5,
10, 20) and by a cosine similarity over colour.

Ours
* The rest of the measure, chosen among 180 combinations as the one nearest to the published shares on 13 photographs
  and graphics: histogram of luma in 8 bins, counts rescaled to 196 pixels; chi-square sum (a-b)^2/(a+b); cosine of
  the pixels minus mid-grey, threshold 0.9; redundant = both measures agree ("and").
* The unit is what becomes one LLM token (one patch on LLaVA, 2x2 merged patches on Qwen).
* Native mode: within a group, in raster order, a unit is dropped if it is redundant to one already kept.
* Exact mode: one order of removals serves every budget, so that kept sets are nested. In each group the closest pair
  loses its later member until one is left; a level's removals are sorted by cost; then the survivors of
  neighbouring groups form the groups of the next level. Until a group's share is used up this is the paper's rule.
* Several images: each has its share of the budget, at least one unit, for a ViT cannot run on none.
* Survivors keep the positions of their places in the image.

Departures: none known, given what is not said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from methods.base import (
    PRE_TOKENIZATION,
    Budget,
    BudgetInfeasible,
    Least,
    Plan,
    Pruner,
    Range,
    Selection,
    Shape,
    Site,
    View,
)
from methods.ops import share

_FLAT = 1e-6  # a colour vector shorter than this has no direction
_PIXELS = 196  # histogram counts are told per 14x14 patch, the paper's unit


@dataclass(frozen=True)
class Colours:
    """What units are compared by: histogram (n, bins), vector (n, v) of length 1, or 0 where it has no direction."""

    histogram: Tensor
    vector: Tensor

    def of(self, units: Tensor) -> Colours:
        """Those of `units` (...,): negative indices give those of unit 0."""
        units = units.clamp_min(0)
        return Colours(self.histogram[units], self.vector[units])


@dataclass(frozen=True)
class VPrune(Pruner):
    """group: side of a group. hist: of which colours, luma's in `hist_bins`. t_chi: redundant up to this chi-square
    distance. cos_vector: what is compared by cosine. tau_cos: redundant from this cosine on. combine: of both rules.
    """

    name = "vprune"
    title = "V-PRUNE"
    paper = "doi:10.3390/app15179463"
    licence = "no code published"
    hooks = (PRE_TOKENIZATION,)
    cost = "O(pixels): 6 pairs of histograms and colours a group"
    synchronises = "once, in native runs: how many units survive is known on the device alone"
    presets: ClassVar = {
        "chi10": {"t_chi": 10.0},
        "chi20": {"t_chi": 20.0},
        "group3": {"group": 3},
        "group4": {"group": 4},
    }

    group: Literal[2, 3, 4] = 2
    hist: Literal["luma", "rgb_joint4", "rgb_marginal8"] = "luma"
    hist_bins: Annotated[int, Least(2)] = 8
    t_chi: Annotated[float, Range(0, above=True)] = 5.0
    cos_vector: Literal["pixels_centred", "mean_rgb"] = "pixels_centred"
    tau_cos: Annotated[float, Range(-1, 1, below=True)] = 0.9
    combine: Literal["and", "or", "chi_only", "cos_only"] = "and"

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        images = len(shape.grids)
        if budget.kind != "native" and budget.tokens < images:
            raise BudgetInfeasible(
                f"vprune keeps >= 1 token of each image, here {images}, got {budget.tokens}; raise --budget", images
            )
        return super().plan(budget, shape)

    def before_tokenization(self, view: View) -> Selection:
        colours = self.colours(view.hidden)
        shares = None if view.keep is None else share(view.keep, view.shape.images, least=1)
        kept, start = [], 0
        for index, (rows, columns) in enumerate(view.shape.grids):
            n = rows * columns
            places = torch.arange(start, start + n, device=view.hidden.device).view(rows, columns)
            if shares is None:
                kept.append(self.not_redundant(colours, places))
            else:
                kept.append(self.removals(colours, places)[n - shares[index] :])
            start += n
        return Selection(torch.cat(kept).sort().values)

    def colours(self, pixels: Tensor) -> Colours:
        """pixels: (n, 3, u, u) in [0, 1]."""
        pixels = pixels.float()
        vector = _VECTORS[self.cos_vector](pixels)  # (n, v)
        length = vector.norm(dim=1, keepdim=True)
        vector = torch.where(length < _FLAT, 0.0, vector / length.clamp_min(_FLAT))
        return Colours(_HISTOGRAMS[self.hist](pixels, self.hist_bins), vector)

    def difference(self, colours: Colours) -> Tensor:
        """How far apart the members of each group are, in threshold units: redundant means <= 1.

        colours of groups, (b, m, ...) -> (b, m, m).
        """
        chi = chi_square(colours.histogram) / self.t_chi
        turn = (1 - cosine(colours.vector)) / (1 - self.tau_cos)
        return _COMBINATIONS[self.combine](chi, turn)

    def not_redundant(self, colours: Colours, places: Tensor) -> Tensor:
        """Native mode: the units that survive the walk, (k,). places: (rows, columns) of unit indices.

        How many they are is known on the device alone, so this waits for it once.
        """
        members = groups(places, self.group)  # (b, m)
        redundant = self.difference(colours.of(members)) <= 1
        kept = torch.zeros_like(members, dtype=torch.bool)
        for slot in range(members.shape[1]):
            repeats = (kept & redundant[:, slot]).any(dim=1)
            kept[:, slot] = (members[:, slot] >= 0) & ~repeats
        return members[kept]

    def removals(self, colours: Colours, places: Tensor) -> Tensor:
        """Exact mode: all units, (n,), in the order in which they are given up; the last is never removed."""
        order = []
        while places.numel() > 1:
            members = groups(places, self.group)  # (b, m)
            cost, slot = give_up(self.difference(colours.of(members)), members >= 0)  # each (b, m - 1)
            events = places.numel() - len(members)
            cheapest = torch.sort(cost.flatten(), stable=True).indices[:events]
            order.append(members.gather(1, slot).flatten()[cheapest])
            places = places[:: self.group, :: self.group]  # the first member of a group is never given up
        return torch.cat([*order, places.flatten()])

    def alive_after(self, site: Site, plan: Plan, shape: Shape) -> tuple[tuple[int, int], ...]:
        return tuple((units, 0) for units in share(plan.keeps[site], shape.images, least=1))


def groups(places: Tensor, side: int) -> Tensor:
    """The side x side groups of a grid, in raster order of groups and members. (rows, columns) -> (b, side^2).

    Places that a group at an odd border lacks are -1.
    """
    rows, columns = places.shape
    padded = pad(places, (0, -columns % side, 0, -rows % side), value=-1)
    blocks = padded.unflatten(1, (-1, side)).unflatten(0, (-1, side))  # (rows of b, side, columns of b, side)
    return blocks.transpose(1, 2).flatten(0, 1).flatten(1)


def give_up(difference: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Reduce every group to its first member: the closest pair loses its later one, again and again.

    difference (b, m, m); present (b, m) bool. Returns (b, m - 1) each: the cost of every step, which never falls and
    is inf where nothing was left to remove, and the slot removed. Ties go to the first pair: (0, 1), (0, 2), ...
    """
    m = present.shape[1]
    first, second = torch.triu_indices(m, m, offset=1, device=present.device)  # (p,) pairs of slots
    pair = difference[:, first, second]  # (b, p)
    costs, removed = [], []
    for _ in range(m - 1):
        closeness = pair.masked_fill(~(present[:, first] & present[:, second]), torch.inf)
        later = second[closeness.argmin(dim=1)][:, None]  # (b, 1)
        costs.append(closeness.amin(dim=1))
        removed.append(later[:, 0])
        present = present.scatter(1, later, False)
    return torch.stack(costs, dim=1), torch.stack(removed, dim=1)


def chi_square(histogram: Tensor) -> Tensor:
    """sum (a-b)^2 / (a+b) of all pairs, empty bins counting nothing. (b, m, bins) -> (b, m, m), 0 to 2 x total."""
    one, other = histogram[:, :, None], histogram[:, None]
    return ((one - other) ** 2 / (one + other).clamp_min(torch.finfo(torch.float32).tiny)).sum(dim=-1)


def cosine(vector: Tensor) -> Tensor:
    """Cosines of all pairs of vectors of length 1 or 0; two zeros agree, one zero is at right angles to the rest.

    (b, m, v) -> (b, m, m). Taken from |a - b|^2 = 2 - 2 cos, which is exactly 1 for equal vectors.
    """
    apart = torch.cdist(vector, vector, compute_mode="donot_use_mm_for_euclid_dist")
    flat = ~vector.any(dim=-1)  # (b, m)
    return torch.where(flat[:, :, None] ^ flat[:, None], 0.0, 1 - apart**2 / 2)


def _luma(pixels: Tensor, bins: int) -> Tensor:
    red, green, blue = pixels.unbind(1)
    return _counts(_bin(0.299 * red + 0.587 * green + 0.114 * blue, bins), bins)


def _rgb_joint4(pixels: Tensor, bins: int) -> Tensor:
    red, green, blue = _bin(pixels, 4).unbind(1)
    return _counts((red * 4 + green) * 4 + blue, 64)


def _rgb_marginal8(pixels: Tensor, bins: int) -> Tensor:
    return torch.cat([_counts(_bin(channel, 8), 8) for channel in pixels.unbind(1)], dim=1)


def _bin(values: Tensor, bins: int) -> Tensor:
    return (values * bins).long().clamp(0, bins - 1)


def _counts(bin_of: Tensor, bins: int) -> Tensor:
    """Pixels in each bin, rescaled to a patch of 196 pixels. (n, u, u) int64 -> (n, bins)."""
    flat = bin_of.flatten(1)
    counts = torch.zeros(len(flat), bins, device=flat.device)
    return counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype)) * (_PIXELS / flat.shape[1])


_HISTOGRAMS = {"luma": _luma, "rgb_joint4": _rgb_joint4, "rgb_marginal8": _rgb_marginal8}
_VECTORS = {
    "pixels_centred": lambda pixels: pixels.flatten(1) - 0.5,
    "mean_rgb": lambda pixels: pixels.mean(dim=(2, 3)),
}
_COMBINATIONS = {
    "and": torch.maximum,
    "or": torch.minimum,
    "chi_only": lambda chi, turn: chi,
    "cos_only": lambda chi, turn: turn,
}
