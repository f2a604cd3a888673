"""What a forward pass will run, told from its plan alone: for tables and `flops_ratio` budgets, without a model."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from harness.flops.dims import ModelDims
from harness.flops.signals import aggregate_flops, llm_signal_flops, vit_signal_flops
from harness.records.records import PromptText, Realised
from methods.base import (
    HOOKS,
    IN_LLM,
    IN_VIT,
    INTERFACE,
    PRE_TOKENIZATION,
    MissingSignal,
    ModelInfo,
    Plan,
    Pruner,
    Shape,
    Site,
    rows_of_unit,
    shows_cls_rows,
)
from methods.ops import share

Grid = tuple[int, int]


def window_sizes(grid: Grid, side: int) -> tuple[int, ...]:
    """Units of each window of an image of rows x columns units, row by row; those at the far edges may be smaller."""
    heights, widths = ([min(side, length - start) for start in range(0, length, side)] for length in grid)
    return tuple(height * width for height in heights for width in widths)


def is_windowed(dims: ModelDims, number: int) -> bool:
    """Whether a ViT block attends within windows."""
    return dims.vit_window > 0 and number not in dims.vit_full_blocks


def window_tokens(dims: ModelDims, grid: Grid, units: int, aggregates: int, extra: int) -> tuple[int, ...]:
    """Tokens of each window of an image of which `units` are alive; extra tokens and an aggregate stand for themselves.

    Exact while all units are there. Then an estimate: the picture decides which go, here all windows lose alike.
    """
    sizes = window_sizes(grid, dims.vit_window)
    alive = [dims.unit_patches * size for size in share(units, sizes) if size]
    return tuple(length for length in (dims.vit_prefix_tokens + extra, *alive, aggregates) if length)


def attended(
    dims: ModelDims, shape: Shape, number: int, rows: tuple[tuple[int, int], ...], tokens: tuple[int, ...], extra: int
) -> tuple[int, ...]:
    """Tokens of each sequence that attends to itself in a block. rows: units and aggregates of each image;
    tokens: all of each image."""
    if not is_windowed(dims, number):
        return tokens
    images = zip(shape.grids, rows, strict=True)
    return tuple(length for grid, (units, more) in images for length in window_tokens(dims, grid, units, more, extra))


Rows = tuple[tuple[int, int], ...]  # units and aggregates of each image, or of each tile where images have several


def unpruned_realised(dims: ModelDims, shape: Shape, text_tokens: int) -> Realised:
    """What runs without a method."""
    rows = _whole(shape)
    vit_tokens = (_vit_tokens(dims, rows, extra=0),) * shape.vit_layers
    return Realised(
        vit_tokens=vit_tokens,
        merged_units=shape.in_vit.n,
        entering=(shape.n,) * shape.llm_layers,
        text_tokens=text_tokens,
        vit_attended=_attended(dims, shape, [rows] * shape.vit_layers, vit_tokens, extra=0),
    )


def planned_realised(
    dims: ModelDims,
    shape: Shape,
    plan: Plan,
    text: PromptText,
    pruner: Pruner | None = None,
    model: ModelInfo | None = None,
    ran: Realised | None = None,
) -> Realised:
    """What will run under `plan`; masks (`kept`) stay empty, since which tokens survive depends on the picture. So does
    how full windows are behind a cut in the ViT, or tiles: `vit_attended` and `vit_tokens` are estimates there.

    pruner: the method that made the plan, None for one that costs nothing and gathers nothing. model: what the method
    was prepared for; needed where it puts extra tokens into the ViT. ran: a run of this plan, to take from it of
    which tiles the units were; without one they are shared by the tiles' sizes. Raises ValueError for a plan in native
    mode, which only a run can tell, and MissingSignal for a method that asks a CLIP model.
    """
    if not plan.entering or any(keep is None for keep in plan.keeps.values()):
        raise ValueError("a plan in native mode has no token counts; run it and read what it realised")
    pruner = pruner or Pruner()
    if pruner.clip:
        raise MissingSignal("what a CLIP model costs depends on the question's words; ask for tokens, not for FLOPs")
    extra = pruner.extra_vit_token_count() if plan.layers_of(IN_VIT) else 0
    needs = pruner.needs(shape) if plan.keeps else ()
    by_half = {0: _whole(shape)}  # the attention of block b is half 2b, its MLP the one behind
    sites, flops = [], 0
    n, merged, in_vit = shape.n, shape.in_vit.n, shape.in_vit
    before = {site: min(keep, in_vit.n) for site, keep in plan.keeps.items() if site.hook in (PRE_TOKENIZATION, IN_VIT)}
    capped = replace(plan, keeps={**plan.keeps, **before})
    cls_rows = len(shape.grids) if shows_cls_rows(pruner, plan, shape) else 0
    for site in sorted(plan.keeps, key=_running_order):
        kept, width = plan.keeps[site], site_width(dims, site)
        assert kept is not None
        seen = in_vit if site in before else shape
        rows = pruner.alive_after(site, capped, seen) or _units(share(capped.keeps[site], seen.images))
        alive = sum(map(sum, rows))
        gathered = sum(aggregates for _, aggregates in rows)
        each = rows_of_unit(site, pruner, shape)
        n = merged if site in before else n + (cls_rows if site.hook == INTERFACE else 0)
        sites.append((site.label, n * each, (alive - gathered) * each, width))
        flops += pruner.selection_flops(site, n * each, (alive - gathered) * each, width, seen)
        if gathered:
            flops += gathered * aggregate_flops(dims, site, n)
        if site.hook == IN_LLM:
            asked = [need for need in needs if need.tower == "llm" and need.kind != "question"]
            flops += llm_signal_flops(dims, asked, site, n, plan.entering, text)
        if site in before:
            half = 2 * site.layer + (1 if site.after == "attention" else 2) if site.hook == IN_VIT else 0
            seen_tokens = _tokens_of_half(ran, half) if ran and half < 2 * shape.vit_layers else ()
            by_half[half], merged = _over_tiles(dims, shape, rows, extra, seen_tokens), alive
        n = kept if site in before else alive  # newlines take what the patches leave
    halves = _every_half(by_half, 2 * shape.vit_layers)
    blocks = halves[::2]
    vit_tokens, mlp_tokens = (tuple(_vit_tokens(dims, rows, extra) for rows in halves[start::2]) for start in (0, 1))
    for need in (need for need in needs if need.tower == "vit"):
        windowed = is_windowed(dims, need.layer)
        for grid, (units, more), tokens in zip(_grids(shape), blocks[need.layer], vit_tokens[need.layer], strict=True):
            units = min(units, prod(grid))  # padding asks nothing
            windows = window_tokens(dims, grid, units, more, extra) if windowed else ()
            flops += vit_signal_flops(dims, need, units, tokens, extra, windows)
    if extra:
        assert model is not None, "extra ViT tokens cost what the model's sizes say"
        flops += len(_grids(shape)) * pruner.extra_vit_flops(text.question, model)
    return Realised(
        vit_tokens=vit_tokens,
        merged_units=merged + cls_rows,
        entering=plan.entering,
        text_tokens=text.total,
        sites=tuple(sites),
        selection_flops=flops,
        vit_mlp_tokens=() if mlp_tokens == vit_tokens else mlp_tokens,
        vit_attended=_attended(dims, shape, blocks, vit_tokens, extra),
    )


def site_width(dims: ModelDims, site: Site) -> int:
    """Values in one row that a decision at `site` looks at: pixels of a unit, or the tower's width."""
    if site.hook == PRE_TOKENIZATION:
        return dims.unit_pixel_values
    return dims.vit_width if site.hook == IN_VIT else dims.llm_width


def _running_order(site: Site) -> tuple[int, int, str]:
    return HOOKS.index(site.hook), site.layer, site.after


def _units(counts: tuple[int, ...]) -> Rows:
    return tuple((units, 0) for units in counts)


def _whole(shape: Shape) -> Rows:
    """What enters the first block without a method: padding of tiles too."""
    return tuple((patches, 0) for _, patches, _ in shape.tiles) if shape.tiles else _units(shape.images)


def _grids(shape: Shape) -> tuple[tuple[int, int], ...]:
    """Of each image; of each tile the units that are visual tokens."""
    return tuple((1, units) for _, _, units in shape.tiles) if shape.tiles else shape.grids


def _over_tiles(dims: ModelDims, shape: Shape, rows: Rows, extra: int, seen_tokens: tuple[int, ...] = ()) -> Rows:
    """Rows of images as rows of their tiles, as seen or else shared by size; an aggregate stands in the first one."""
    if not shape.tiles:
        return rows
    spread: list[tuple[int, int]] = []
    for image, (units, aggregates) in enumerate(rows):
        shares = share(units, tuple(shown for owner, _, shown in shape.tiles if owner == image))
        spread += [(part, 0 if place else aggregates) for place, part in enumerate(shares)]
    others = dims.vit_prefix_tokens + extra
    seen = zip(seen_tokens, spread, strict=True) if seen_tokens else ()
    return tuple(((tokens - others - more) // dims.unit_patches, more) for tokens, (_, more) in seen) or tuple(spread)


def _tokens_of_half(ran: Realised, half: int) -> tuple[int, ...]:
    """Tokens of each image or tile in the attention (even) or the MLP (odd) of block half // 2."""
    return (ran.vit_mlp_tokens if half % 2 and ran.vit_mlp_tokens else ran.vit_tokens)[half // 2]


def _vit_tokens(dims: ModelDims, rows: Rows, extra: int) -> tuple[int, ...]:
    others = dims.vit_prefix_tokens + extra
    return tuple(units * dims.unit_patches + aggregates + others for units, aggregates in rows)


def _attended(
    dims: ModelDims, shape: Shape, blocks: list[Rows], vit_tokens: tuple[tuple[int, ...], ...], extra: int
) -> tuple[tuple[int, ...], ...]:
    """`Realised.vit_attended`."""
    images = enumerate(zip(blocks, vit_tokens, strict=True))
    together = tuple(attended(dims, shape, number, rows, tokens, extra) for number, (rows, tokens) in images)
    return () if together == vit_tokens else together


def _every_half(by_half: dict[int, Rows], halves: int) -> list[Rows]:
    """Rows of each half block, given the halves at which they change."""
    rows, now = [], by_half[0]
    for half in range(halves):
        now = by_half.get(half, now)
        rows.append(now)
    return rows
