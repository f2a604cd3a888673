from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import processed, qwen3_vl
from torch.utils.flop_counter import FlopCounterMode
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.models.families.registry import family_class
from harness.validate.tiny import TINY
from methods.base import INTERFACE, Budget, BudgetInfeasible, PruningError, Shape, Site
from methods.ops import cosines
from methods.prunesid import PruneSID, _stays, groups, loadings, quotas, thinned

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("prunesid_*.npz"))


def test_of_each_group_the_best_stay_and_those_like_them_stand_behind():
    # Two groups of four; in each two pairs of equal directions. All pairs: mean cosine 1/7 (12 equal ones of 28 at
    # right angles to the rest: 4 pairs of equal ones -> 4 / 28). k = 8 of 8: tau = 1/4 x 1/7, so twins go behind.
    tokens = torch.eye(4)[[0, 0, 1, 1, 2, 2, 3, 3]]
    score = torch.tensor([1.0, 2, 3, 4, 8, 7, 6, 5])
    loading = torch.eye(2)[[0, 0, 0, 0, 1, 1, 1, 1]]
    assert thinned(tokens, score, loading, 8, cls=0).tolist() == [3, 1, 2, 0, 4, 6, 5, 7]
    assert thinned(tokens, score, loading, 4, cls=0).tolist() == [3, 1, 4, 6]


def test_a_token_without_attention_is_behind_all_others_of_its_group():
    tokens, loading = torch.eye(4), torch.ones(4, 1)
    assert thinned(tokens, torch.tensor([0.0, 0, 2, 1]), loading, 4, cls=0).tolist() == [2, 3, 0, 1]
    # Even behind a twin of the best one, although it is like no other.
    assert thinned(torch.eye(2)[[0, 0, 1]], torch.tensor([3.0, 2, 0]), torch.ones(3, 1), 3, cls=0).tolist() == [0, 1, 2]


def test_quotas_are_a_part_of_what_stays_at_least_one_and_what_is_left_goes_where_most_stay():
    # 8 tokens without CLS: one each, and 5 by 6 : 3 : 1, running sums 3, 4.5 (to even: 4) and 5: 4, 2, 2. The third
    # has one that stays, so that one is left: the first takes it, up to its most, 5.
    size, staying = torch.tensor([20, 10, 5]), torch.tensor([6, 3, 1])
    assert quotas(size, staying, 8, cls=0).tolist() == [5, 2, 1]
    assert quotas(size, staying, 8, cls=1).sum() == 7
    assert quotas(torch.tensor([3, 0, 5]), torch.tensor([1, 0, 2]), 8, cls=0).tolist() == [3, 0, 5]  # empty ones none


def sequential(tokens, score, group, tau) -> set[int]:
    """Non-maximum suppression as described: the best token of a group stays, those like it go, and so on."""
    cosine, alive, stays = cosines(tokens), set(range(len(tokens))), set()
    while alive:
        best = max(alive, key=lambda i: (float(score[i]), -i))
        stays.add(best)
        alive -= {i for i in alive if group[i] == group[best] and cosine[best, i] > tau} | {best}
    return stays


@pytest.mark.parametrize("n", [5, 40, 200])
def test_all_groups_at_once_thin_as_one_token_after_the_other_does(n):
    generator = torch.Generator().manual_seed(n)
    tokens, score = torch.randn(n, 4, generator=generator), torch.rand(n, generator=generator)
    group = torch.randint(0, 3, (n,), generator=generator)
    order = torch.sort(score, descending=True, stable=True).indices
    for tau in (-0.5, 0.1, 0.6, 0.95):
        mine = order[_stays(cosines(tokens), group, order, tau)]
        assert set(mine.tolist()) == sequential(tokens, score, group, tau)


def test_components_are_those_of_an_exact_decomposition():
    tokens = torch.randn(30, 50, generator=torch.Generator().manual_seed(1))
    data = tokens.sigmoid()
    exact = torch.linalg.svd((data - data.mean(1, keepdim=True)).T, full_matrices=False).Vh[:5].T.abs()
    mine = loadings(tokens, 5, torch.Generator().manual_seed(0), power=300)
    torch.testing.assert_close(mine, exact, atol=1e-3, rtol=0)


def test_a_quarter_of_the_tokens_are_groups_at_least_one_or_four():
    assert [groups(k, 576, 1024, False) for k in (1, 4, 7, 64)] == [1, 1, 1, 16]
    assert [groups(k, 36, 1024, True) for k in (1, 16, 30)] == [4, 4, 7]
    assert groups(400, 576, 32, False) == 32  # no more components than channels


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "internvl"])
def test_every_budget_is_met_with_cls_first_where_there_is_one(family):
    adapter = family_class(family)(TINY[family].build())
    engine = Engine(adapter, PruneSID())
    inputs = adapter.inputs(TINY[family].processed(((6, 6),)))
    for k in range(1, 36, 3):
        prefill = engine.prefill(inputs, engine.plan(Budget("layer_average", k), inputs.shape))
        assert prefill.realised.entering == (k,) * 6
        _, unit = prefill.trace.kept["interface"]
        assert len(set(unit.tolist())) == k
        assert (unit[0] == -1) == (family == "llava")


def test_raster_order_sorts_the_same_tokens():
    family = Qwen3VL(qwen3_vl())
    inputs = family.inputs(processed(((6, 6),)))
    kept = []
    for order in ("group", "raster"):
        engine = Engine(family, PruneSID(order=order))
        kept.append(engine.prefill(inputs, engine.plan(Budget("layer_average", 17), inputs.shape)).trace)
    group, raster = (trace.kept["interface"][1].tolist() for trace in kept)
    assert sorted(group) == raster != group


def test_native_counts_floors_and_settings():
    native, site = Budget("native", 0), Site(INTERFACE)
    clip = Shape(((24, 24),), 23, 32, unit_patches=1, vit_cls=True)
    assert PruneSID().plan(native, clip).keeps == {site: 64}
    assert PruneSID().plan(native, shape_of((24, 48), (3, 5))).keeps == {site: 128 + 15}
    with pytest.raises(BudgetInfeasible):
        PruneSID().plan(Budget("layer_average", 0), shape_of((4, 4)))
    with pytest.raises(PruningError, match="tokens"):
        PruneSID(tokens=0)


def test_products_are_counted_to_the_unit():
    shape = shape_of((4, 6), (3, 4))
    view = view_of(Site(INTERFACE), torch.randn(36, 16), 18, shape)
    with FlopCounterMode(display=False) as counter:
        PruneSID().at_interface(view)
    assert PruneSID().selection_flops(Site(INTERFACE), 36, 18, 16, shape) == counter.get_total_flops() > 0


@pytest.mark.parametrize("percent", [50, 33, 22, 11])
def test_a_model_runs_what_was_planned(percent):
    family = Qwen3VL(qwen3_vl())
    engine, inputs = Engine(family, PruneSID()), family.inputs(processed(((6, 6), (3, 4))))
    k = round(inputs.shape.n * percent / 100)
    realised = engine.prefill(inputs, engine.plan(Budget("layer_average", k), inputs.shape)).realised
    assert realised.entering == (k,) * 6


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kept_tokens_and_their_order_equal_the_authors_from_their_loadings(path):
    with np.load(path) as golden:
        arrays = {name: torch.from_numpy(np.atleast_1d(golden[name])) for name in golden.files}
    for tile, loading in enumerate(arrays["loadings_abs"]):
        score = arrays["cls_attention_rows"][tile, :, 0, 1:].sum(0)
        mine = thinned(arrays["hidden_states"][tile, 1:], score, loading, int(arrays["need_token_num"]), cls=1)
        assert [0, *(mine + 1).tolist()] == arrays["selected_indices_with_cls"][tile].tolist()
