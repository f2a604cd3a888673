from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.base import INTERFACE, Budget, BudgetInfeasible, PruningError, Shape, Signal, Site
from methods.holov import HoloV
from methods.selection import reduce

GOLDEN = [Path(__file__).parents[1] / "golden" / f"holov_{name}.npz" for name in ("n576_t64", "n144_t40_overflow")]
RELEASED = HoloV.presets["released"]


def image(attention: list[float], k: int, **settings) -> list[int]:
    rows, real = HoloV(**settings).of_image(torch.tensor(attention), k)
    return torch.where(real > 0, rows, -1).tolist()


def test_a_run_has_tokens_in_proportion_to_its_mean_attention():
    # Means .3 and .1 of 4: quotas 3 and 1.
    assert image([0.3, 0.2, 0.4, 0.3, 0.0, 0.1, 0.2, 0.1], 4, crops=2) == [0, 2, 3, 6]


def test_what_is_cut_off_goes_to_the_largest_means():
    # Means .48, .32 and .2: quotas 1.92, 1.28 and .8 of 4, cut off to 1, 1 and 0. Two are left: one for the first run,
    # one for the second.
    assert image([0.6, 0.36, 0.48, 0.2, 0.4, 0.36, 0.1, 0.3, 0.2], 4, crops=3) == [0, 2, 4, 5]


def test_the_first_runs_are_longer_and_there_is_no_empty_one():
    # Five tokens in two runs: three and two. The second run's mean is larger although its sum is not.
    assert image([0.1, 0.1, 0.2, 0.2, 0.19], 1, crops=2) == [3]
    assert HoloV(crops=16).runs(5, 2) == 5


def test_a_run_of_one_token_counts_a_thousandth():
    assert image([0.1, 0.1, 0.9], 1, crops=2) == [0]


def test_what_a_full_run_cannot_take_goes_to_others_or_becomes_zero_vectors():
    # All attention lies on the first run of 2: its quota is 4. The others, equal in having none, take the rest.
    attention = [0.2, 0.5, 0.0, 0.0, 0.0, 0.0]
    assert image(attention, 4, crops=3) == [0, 1, 2, 4]
    assert image(attention, 4, crops=3, **RELEASED) == [0, 1, -1, -1]


def test_rounds_begin_with_the_largest_mean():
    attention = [9.0, 9.0, 0.01, 0.02, 0.03, 0.04]
    assert image(attention, 3, crops=3) == [0, 1, 5]
    assert image(attention, 4, crops=3) == [0, 1, 3, 5]
    assert image(attention, 5, crops=3) == [0, 1, 3, 4, 5]


def test_the_released_order_is_run_by_run_most_attended_first_and_whole_runs_in_raster_order():
    # Means .25 and .4: quotas 1.5 and 2.5 of 4, cut off to 1 and 2; the second run has the larger mean.
    attention = [0.1, 0.4, 0.3, 0.2, 0.5, 0.3, 0.6, 0.2]
    assert image(attention, 4, crops=2) == [1, 4, 5, 6]
    assert image(attention, 4, crops=2, **RELEASED) == [1, 6, 4, 5]
    assert image([0.1, 0.9, 0.0, 0.0], 2, crops=2, **RELEASED) == [0, 1]


@pytest.mark.parametrize("n", [1, 2, 7, 24, 65])
@pytest.mark.parametrize("crops", [1, 4, 16, "share"])
def test_every_budget_is_met_by_distinct_tokens(n, crops):
    attention = torch.rand(n, generator=torch.Generator().manual_seed(n)) ** 4
    for k in range(1, n + 1):
        assert len(set(HoloV(crops=crops).of_image(attention, k)[0].tolist())) == k
        assert image(attention.tolist(), k, crops=crops) == sorted(image(attention.tolist(), k, crops=crops))
        rows, real = HoloV(crops=crops, **RELEASED).of_image(attention, k)
        assert len(set(rows.tolist())) == k and real.sum() <= k


def test_an_image_without_attention_still_keeps_its_budget():
    assert image([0.0] * 6, 3, crops=3) == [0, 2, 4]


def test_a_zero_vector_is_a_row_that_the_llm_sees():
    shape = Shape(((1, 6),), 23, 32, unit_patches=1, vit_cls=True)
    attention = torch.tensor([0.2, 0.5, 0, 0, 0, 0])[:, None]
    view = view_of(Site(INTERFACE), torch.ones(6, 3), 4, shape, {Signal("rows", "vit", 22, "cls"): attention})
    rows = reduce(HoloV(crops=3, **RELEASED).at_interface(view), view.hidden)
    assert rows.sum(dim=1).tolist() == [3, 3, 0, 0]
    assert reduce(HoloV(crops=3).at_interface(view), view.hidden).sum() == 12


def test_crops_follow_the_share_that_stays():
    assert HoloV(crops="share").runs(576, 144) == 7
    assert HoloV(crops="share").runs(576, 64) == 16
    assert HoloV(crops="share").runs(10, 10) == 1


def test_native_counts_floors_and_settings():
    native, site = Budget("native", 0), Site(INTERFACE)
    assert HoloV().plan(native, shape_of((24, 24), (4, 4))).keeps == {site: 80}
    assert HoloV(ratio=0.25).plan(native, shape_of((11, 13))).keeps == {site: 35}
    with pytest.raises(BudgetInfeasible):
        HoloV().plan(Budget("layer_average", 0), shape_of((4, 4)))
    for settings in ({"crops": 0}, {"tokens": 0}, {"ratio": 1.5}):
        with pytest.raises(PruningError, match=next(iter(settings))):
            HoloV(**settings)


@pytest.mark.parametrize("percent", [50, 33, 22, 11])
@pytest.mark.parametrize("settings", [{}, RELEASED], ids=["default", "released"])
def test_a_model_runs_what_was_planned(percent, settings):
    family = Qwen3VL(qwen3_vl())
    engine, inputs = Engine(family, HoloV(**settings)), family.inputs(processed(((6, 6), (3, 4))))
    k = round(inputs.shape.n * percent / 100)
    realised = engine.prefill(inputs, engine.plan(Budget("layer_average", k), inputs.shape)).realised
    assert realised.entering == (k,) * 6


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kept_tokens_and_their_order_equal_the_authors(path):
    with np.load(path) as golden:
        for row, theirs in zip(golden["attention"], golden["kept_in_output_order"], strict=True):
            assert image(row.tolist(), len(theirs), crops=int(golden["num_crops"]), **RELEASED) == theirs.tolist()
