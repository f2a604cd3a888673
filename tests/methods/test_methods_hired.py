from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.models.families.registry import family_class
from harness.validate.golden import validate_file
from harness.validate.tiny import TINY
from methods.base import INTERFACE, Budget, BudgetInfeasible, PruningError, Shape, Signal, Site
from methods.hired import HiRED, Tiles

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("hired_*.npz"))
CPU = torch.device("cpu")


def tiled(shown: list[int], rows: int, columns: int, side: int = 2) -> Shape:
    """A base tile of side x side and tiles that together show rows x columns patches."""
    patches = side**2
    return Shape(
        ((side, side), (rows, columns + 1)),
        8,
        6,
        unit_patches=1,
        vit_cls=True,
        vit_grids=((side, side), (rows, columns)),
        tiles=((0, patches, patches), *((1, patches, units) for units in shown)),
    )


def picture(early: list[float], score: list[float], shape: Shape, k: int | None, **settings) -> list[int]:
    tiles = Tiles.of(shape, 1)
    return HiRED(**settings).of_picture(torch.tensor(score), torch.tensor(early), tiles, k).tolist()


def test_an_image_that_is_seen_whole_keeps_the_most_attended():
    shape, score = shape_of((1, 4)), torch.tensor([0.1, 0.4, 0.2, 0.3])
    signals = {Signal("rows", "vit", 7, "received"): score[:, None].expand(-1, 4)}
    assert HiRED().at_interface(view_of(Site(INTERFACE), torch.zeros(4, 1), 2, shape, signals)).keep.tolist() == [1, 3]


# A base tile of 2 x 2 (rows 0..3 of the view) and two tiles side by side, in lines of 4 patches and a newline:
#     4 5 | 6 7  8
#     9 10|11 12 13
EARLY = [0.9, 0.1, 0.2, 0.3] + [0.0] * 10
SCORE = [0.1, 0.4, 0.2, 0.3, 0.5, 0.1, 0.2, 0.6, 0.0, 0.3, 0.4, 0.9, 0.1, 0.0]


def test_half_is_for_the_base_tile_and_the_rest_goes_where_the_first_block_looks():
    # Of the base tile's 2 places most looked at, 0 lies in the upper run and 3 in the lower one: a token each of 2.
    assert picture(EARLY, SCORE, tiled([4, 4], 2, 4), 4) == [1, 3, 4, 11]
    # 0 and 1: all of the rest for the first tile.
    early = [0.9, 0.8, *EARLY[2:]]
    assert picture(early, SCORE, tiled([4, 4], 2, 4), 4) == [1, 3, 4, 10]


def test_content_of_the_paper_is_a_sum_over_the_rectangle_that_a_tile_shows():
    # Side by side, the left tile shows places 0 and 2 (1.1), the right one 1 and 3 (0.4): of 2, 1.47 and .53: one and
    # nothing, and the larger remainder is the right one's; of stripes it were .9 + .1 and .2 + .3.
    contents = HiRED(content="paper").contents(torch.tensor(EARLY[:4]), Tiles.of(tiled([4, 4], 2, 4), 1))
    torch.testing.assert_close(contents, torch.tensor([1.1, 0.4]))
    assert picture(EARLY, SCORE, tiled([4, 4], 2, 4), 4, content="paper") == [1, 3, 4, 11]


def test_a_full_tile_leaves_its_tokens_to_the_other_and_newlines_come_last():
    early = [0.9, 0.8, *EARLY[2:]]  # the first tile is offered all 6 that the base tile leaves of 10, and has 4
    assert picture(early, SCORE, tiled([4, 4], 2, 4), 10) == [0, 1, 2, 3, 4, 5, 7, 9, 10, 11]
    assert picture(early, SCORE, tiled([4, 4], 2, 4), 13) == [*range(9), *range(9, 13)]
    assert len(picture(early, SCORE, tiled([4, 4], 2, 4), 14)) == 14


def test_native_runs_lose_what_a_full_tile_cannot_take():
    # .9 of 12 patches: 10, of which the base tile takes 4 and the first tile is offered 6, but has 4.
    early = [0.9, 0.8, *EARLY[2:]]
    assert picture(early, SCORE, tiled([4, 4], 2, 4), None, rate=0.9) == [0, 1, 2, 3, 4, 5, 9, 10]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [tiled([4, 4], 2, 4), tiled([2] * 4, 2, 4), tiled([4, 4], 4, 2)])
def test_every_budget_is_met_by_distinct_ascending_rows(shape, alpha):
    generator = torch.Generator().manual_seed(0)
    early, score = torch.rand(shape.n, generator=generator).tolist(), torch.rand(shape.n, generator=generator).tolist()
    for k in range(1, shape.n + 1):
        kept = picture(early, score, shape, k, alpha=alpha)
        assert kept == sorted(set(kept)) and len(kept) == k


@pytest.mark.parametrize(
    ("shown", "rows", "columns", "heights", "widths"),
    [
        ([4, 4], 2, 4, (2,), (2, 2)),
        ([4, 4], 4, 2, (2, 2), (2,)),
        ([4, 2, 4, 2], 4, 3, (2, 2), (2, 1)),
        ([2, 2, 2, 2], 2, 4, (1, 1), (2, 2)),  # two rows of tiles half of which is padding, not one row of four
        ([2, 4, 2], 2, 4, (2,), (1, 2, 1)),
        ([0, 4, 4, 0], 2, 4, (2,), (0, 2, 2, 0)),
    ],
)
def test_how_tiles_stand_is_read_off_what_they_show(shown, rows, columns, heights, widths):
    assert Tiles.of(tiled(shown, rows, columns), 1) == Tiles(2, heights, widths)


def test_rows_of_a_view_know_their_tile():
    assert Tiles(2, (2, 1), (2, 1)).of_rows(CPU).tolist() == [0, 0, 1, -1, 0, 0, 1, -1, 2, 2, 3, -1]


def test_numbers_that_are_of_no_grid_are_refused():
    with pytest.raises(PruningError, match="tiles"):
        Tiles.of(tiled([3, 4], 2, 4), 1)


def test_a_family_with_tiles_keeps_every_budget():
    adapter = family_class("llava_next")(TINY["llava_next"].build())
    engine = Engine(adapter, HiRED())
    for grids in (((12, 12),), ((4, 12), (12, 6))):
        inputs = adapter.inputs(TINY["llava_next"].processed(grids))
        for k in range(1, inputs.shape.n, 37):
            plan = engine.plan(Budget("layer_average", k), inputs.shape)
            assert engine.prefill(inputs, plan).realised.entering == (k,) * 6


def test_native_counts_floors_and_settings():
    native, site = Budget("native", 0), Site(INTERFACE)
    assert HiRED(rate=1 / 3).plan(native, shape_of((24, 24))).keeps == {site: 192}
    assert HiRED().plan(native, tiled([4, 4], 2, 4)).keeps == {site: None}
    with pytest.raises(BudgetInfeasible):
        HiRED().plan(Budget("layer_average", 0), shape_of((4, 4)))
    for settings in ({"rate": 0.0}, {"alpha": 1.5}):
        with pytest.raises(PruningError, match=next(iter(settings))):
            HiRED(**settings)


@pytest.mark.parametrize("percent", [50, 33, 22, 11])
def test_a_model_runs_what_was_planned(percent):
    family = Qwen3VL(qwen3_vl())
    engine, inputs = Engine(family, HiRED()), family.inputs(processed(((6, 6), (3, 4))))
    k = round(inputs.shape.n * percent / 100)
    realised = engine.prefill(inputs, engine.plan(Budget("layer_average", k), inputs.shape)).realised
    assert realised.entering == (k,) * 6


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kept_tokens_of_every_tile_equal_the_authors(path):
    assert validate_file(path).status == "pass"


def test_tiles_and_whole_images_are_among_the_files():
    assert len(GOLDEN) == 4
