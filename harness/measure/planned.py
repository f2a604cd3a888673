"""What a forward pass will run, told from its plan alone: for tables and `flops_ratio` budgets, without a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.measure.dims import ModelDims
from harness.records import Realised
from methods.base import HOOKS, IN_LLM, IN_VIT, PRE_TOKENIZATION, Plan, Shape, Site
from methods.ops import share


@dataclass(frozen=True)
class Declared:
    """What a method declares beside its plan.

    extra_vit_tokens: put in front of each image, if the plan has an in-vit site (`Pruner.extra_vit_token_count`).
    aggregates_after: site -> aggregate rows alive after it, all images together; they are part of `Plan.keeps`, and
    each is one token in the ViT where a unit is g patches. selection_flops: `Pruner.selection_flops`; its n counts
    the aggregates carried so far, its k the rows kept without the new ones.
    """

    extra_vit_tokens: int = 0
    aggregates_after: Callable[[Site], int] = lambda site: 0
    selection_flops: Callable[[Site, int, int, int], int] = lambda site, n, k, d: 0


def unpruned_realised(dims: ModelDims, shape: Shape, text_tokens: int) -> Realised:
    """What runs without a method."""
    return Realised(
        vit_tokens=(_vit_tokens(dims, shape.images, (0,) * len(shape.grids), 0),) * shape.vit_layers,
        merged_units=shape.n,
        entering=(shape.n,) * shape.llm_layers,
        text_tokens=text_tokens,
    )


def planned_realised(
    dims: ModelDims, shape: Shape, plan: Plan, text_tokens: int, declared: Declared | None = None
) -> Realised:
    """What will run under `plan`; masks (`kept`) stay empty, since which tokens survive depends on the picture.

    Exact for one image. With several, a site's rows are split among them in proportion to the rows alive, which is
    an estimate of the ViT's part only. Raises ValueError for a plan in native mode, which only a run can tell, and for
    a cut between attention and MLP.
    """
    if not plan.entering or any(keep is None for keep in plan.keeps.values()):
        raise ValueError("a plan in native mode has no token counts; run it and read what it realised")
    if any(site.after == "attention" for site in plan.keeps):
        raise ValueError("FLOPs of a cut between a ViT block's attention and its MLP are not told apart yet")
    declared = declared or Declared()
    extra = declared.extra_vit_tokens if plan.layers_of(IN_VIT) else 0
    units, aggregates = shape.images, (0,) * len(shape.grids)
    by_block = {0: _vit_tokens(dims, units, aggregates, extra)}
    sites, selection_flops = [], 0
    n = merged = shape.n
    for site in sorted(plan.keeps, key=_running_order):
        alive, gathered, width = plan.keeps[site], declared.aggregates_after(site), site_width(dims, site)
        assert alive is not None
        k = alive - gathered
        sites.append((site_label(site), n, k, width))
        selection_flops += declared.selection_flops(site, n, k, width)
        if site.hook in (PRE_TOKENIZATION, IN_VIT):
            units, aggregates = _split(alive, units, aggregates, gathered)
            by_block[site.layer + 1 if site.hook == IN_VIT else 0] = _vit_tokens(dims, units, aggregates, extra)
            merged = alive
        n = alive
    return Realised(
        vit_tokens=_every_block(by_block, shape.vit_layers),
        merged_units=merged,
        entering=plan.entering,
        text_tokens=text_tokens,
        sites=tuple(sites),
        selection_flops=selection_flops,
    )


def site_label(site: Site) -> str:
    """ "interface", "pre-tokenization", "in-vit:5", "in-llm:2"."""
    return f"{site.hook}:{site.layer}" if site.hook in (IN_VIT, IN_LLM) else site.hook


def site_width(dims: ModelDims, site: Site) -> int:
    """Values in one row that a decision at `site` looks at: pixels of a unit, or the tower's width."""
    if site.hook == PRE_TOKENIZATION:
        return dims.unit_pixel_values
    return dims.vit_width if site.hook == IN_VIT else dims.llm_width


def _running_order(site: Site) -> tuple[int, int]:
    return HOOKS.index(site.hook), site.layer


def _split(k: int, units: tuple[int, ...], aggregates: tuple[int, ...], carried: int) -> tuple[tuple[int, ...], ...]:
    """Units and aggregates of each image after k rows in all survive, `carried` of them aggregates."""
    gathered = share(carried, (1,) * len(units))
    rows = share(k, tuple(u + a for u, a in zip(units, aggregates, strict=True)))
    return tuple(max(row - a, 0) for row, a in zip(rows, gathered, strict=True)), gathered


def _vit_tokens(dims: ModelDims, units: tuple[int, ...], aggregates: tuple[int, ...], extra: int) -> tuple[int, ...]:
    others = dims.vit_prefix_tokens + extra
    return tuple(u * dims.unit_patches + a + others for u, a in zip(units, aggregates, strict=True))


def _every_block(by_block: dict[int, tuple[int, ...]], layers: int) -> tuple[tuple[int, ...], ...]:
    """Tokens of each block, given the blocks at which they change."""
    blocks, now = [], by_block[0]
    for block in range(layers):
        now = by_block.get(block, now)
        blocks.append(now)
    return tuple(blocks)
