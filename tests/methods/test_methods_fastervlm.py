from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.base import INTERFACE, Budget, BudgetInfeasible, MissingSignal, PruningError, Shape, Signal, Site
from methods.fastervlm import FasterVLM
from methods.vispruner import VisPruner

GOLDEN = [Path(__file__).parents[1] / "golden" / f"fastervlm_{name}.npz" for name in ("n576_t144", "b5_n144_t8")]
RECEIVED = Signal("rows", "vit", 7, "received")


def select(attention: torch.Tensor, k: int, *grids: tuple[int, int]) -> list[int]:
    shape = shape_of(*(grids or ((1, len(attention)),)))
    rows = attention if attention.ndim == 2 else attention[:, None].expand(-1, 4)
    view = view_of(Site(INTERFACE), torch.zeros(len(attention), 2), k, shape, {RECEIVED: rows})
    return FasterVLM().at_interface(view).keep.tolist()


def test_the_most_attended_tokens_stay_in_raster_order_and_ties_go_to_the_lower_index():
    assert select(torch.tensor([0.1, 0.4, 0.2, 0.3]), 2) == [1, 3]
    assert select(torch.tensor([0.1, 0.3, 0.3, 0.3]), 2) == [1, 2]


def test_patches_of_a_unit_count_by_their_mean():
    assert select(torch.tensor([[9.0, 0, 0, 0], [3, 3, 3, 3], [0, 0, 0, 1]]), 1) == [1]


def test_each_image_has_its_share_however_little_it_is_attended_to():
    attention = torch.cat([torch.rand(24) + 100, torch.rand(12)])
    kept = select(attention, 18, (4, 6), (3, 4))
    assert sum(token < 24 for token in kept) == 12


def test_it_keeps_what_vispruner_keeps_where_all_are_important():
    attention = torch.rand(40, generator=torch.Generator().manual_seed(0))
    shape, rows = shape_of((5, 8)), attention[:, None].expand(-1, 4)
    view = view_of(Site(INTERFACE), torch.randn(40, 3), 13, shape, {RECEIVED: rows})
    assert select(attention, 13, (5, 8)) == VisPruner(important_ratio=1.0).at_interface(view).keep.tolist()


def test_a_tower_with_cls_is_asked_for_its_row():
    shape = Shape(((24, 24),), 23, 32, unit_patches=1, vit_cls=True)
    assert FasterVLM().needs(shape) == (Signal("rows", "vit", 22, "cls"),)
    with pytest.raises(MissingSignal):
        FasterVLM().at_interface(view_of(Site(INTERFACE), torch.ones(576, 2), 2, shape))


def test_native_runs_keep_the_authors_count_of_each_tile_or_all_it_has():
    native, site = Budget("native", 0), Site(INTERFACE)
    assert FasterVLM().plan(native, shape_of((24, 24), (4, 4))).keeps == {site: 160}
    tiled = Shape(((24, 24), (48, 49)), 23, 32, 1, True, tiles=((0, 576, 576), *[(1, 576, 576)] * 4))
    assert FasterVLM(tokens=29).plan(native, tiled).keeps == {site: 145}


def test_no_token_at_all_is_refused():
    with pytest.raises(BudgetInfeasible):
        FasterVLM().plan(Budget("layer_average", 0), shape_of((4, 4)))
    with pytest.raises(PruningError, match="tokens"):
        FasterVLM(tokens=0)


@pytest.mark.parametrize("percent", [50, 33, 22, 11])
def test_a_model_runs_what_was_planned(percent):
    family = Qwen3VL(qwen3_vl())
    engine, inputs = Engine(family, FasterVLM()), family.inputs(processed(((6, 6), (3, 4))))
    k = round(inputs.shape.n * percent / 100)
    realised = engine.prefill(inputs, engine.plan(Budget("layer_average", k), inputs.shape)).realised
    assert realised.entering == (k,) * 6


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kept_tokens_equal_the_authors(path):
    with np.load(path) as golden:
        attention, theirs = torch.from_numpy(golden["cls_attention"]).mean(1), golden["kept_sorted"]
    assert [select(tile, theirs.shape[1]) for tile in attention] == theirs.tolist()
