from __future__ import annotations

import pytest
import torch
from literal.pact import labels as literal
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods import build
from methods.base import IN_LLM, Budget, BudgetInfeasible, PruningError, Selection, Signal, Site
from methods.ops import unit
from methods.pact import PACT, centres, density, exactly
from methods.selection import reduce, reduce_sizes

ROWS = Signal("rows", layer=4, queries="mean", rope=False)
COSINES = Signal("cosines", layer=4)


def line(*degrees: float) -> torch.Tensor:
    """Cosines between directions in the plane: 37 degrees are a cosine distance of 0.2, 60 of 0.5, 90 of 1."""
    angle = torch.tensor(degrees).deg2rad()
    return torch.cos(angle[:, None] - angle)


def select(pruner: PACT, cosines, importance, keep: int | None = None, hidden=None) -> Selection:
    n = len(importance)
    hidden = torch.ones(n, 1) if hidden is None else hidden
    signals = {ROWS: torch.as_tensor(importance, dtype=torch.float32), COSINES: cosines}
    return pruner.in_llm(view_of(Site(IN_LLM, 4), hidden, keep, shape_of((1, n), llm_layers=28), signals))


def random_cosines(n: int, seed: int = 0, groups: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(groups, 16, generator=generator)
    keys = middle[torch.arange(n) % groups] + 0.5 * torch.randn(n, 16, generator=generator)
    return unit(keys) @ unit(keys).T


def test_the_densest_token_is_a_centre_and_what_is_near_joins_it():
    # 0, 10, 20 degrees crowd around 10; 100 and -80 stand alone, at a right angle to 10. All survive EUTI.
    selection = select(PACT(keep=1.0), line(0, 10, 20, 100, -80), [1, 1, 1, 1, 1])
    assert selection.keep.tolist() == [1, 3, 4]
    assert selection.assign.tolist() == [0, 0, 0, 1, 2]
    assert selection.weight.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1, 1])
    assert selection.key_bias
    assert reduce_sizes(selection, torch.ones(5)).tolist() == [3, 1, 1]
    hidden = torch.tensor([[1.0], [2], [6], [9], [7]])
    torch.testing.assert_close(reduce(selection, hidden), torch.tensor([[3.0], [9], [7]]))


def test_a_token_as_far_as_the_cutoff_is_no_centre():
    apart = torch.tensor([[0, 0.25], [0.25, 0]])
    assert centres(apart, 0.25).sum() == 1
    assert centres(apart, 0.2499).sum() == 2


def test_a_token_joins_the_nearest_centre_not_the_first():
    # 0 and 50 are centres (0.36 apart); 30 is denser than neither of its neighbours and nearer to 50.
    selection = select(PACT(keep=1.0, cutoff=0.2), line(0, -10, 10, 30, 50, 60, 40), [1.0] * 7)
    centre = selection.keep[selection.assign]
    angles = [0, -10, 10, 30, 50, 60, 40]
    for row, mine in enumerate(centre.tolist()):
        others = [abs(angles[row] - angles[other]) for other in selection.keep.tolist()]
        assert abs(angles[row] - angles[mine]) == min(others)


def test_density_by_hand():
    distance = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert density(distance).tolist() == pytest.approx([1 + 0.7788008] * 2)  # exp(-1/4)


def test_of_equal_densities_the_later_token_is_denser():
    assert centres(torch.tensor([[0.0, 0.1], [0.1, 0.0]]), 0.2).tolist() == [False, True]


def test_unimportant_tokens_near_a_centre_are_retrieved_and_others_are_gone():
    # Centre at 0 (row 0). Limit 1.5 x 0.21 = 0.315: 40 degrees is 0.234 away, 50 is 0.357.
    cosines = line(0, 40, 50)
    selection = select(PACT(keep=0.34), cosines, [1.0, 0.1, 0.1])
    assert selection.keep.tolist() == [0] and selection.assign.tolist() == [0, 0, -1]
    assert selection.weight[:2].tolist() == [0.5, 0.5]
    apart = select(PACT(keep=0.34, retrieve=False), cosines, [1.0, 0.1, 0.1])
    assert apart.assign.tolist() == [0, -1, -1]


def test_importance_is_attention_times_the_length_of_the_state():
    hidden = torch.tensor([[3.0, 4.0], [0.0, 1.0], [1.0, 0.0]])  # lengths 5, 1, 1
    selection = select(PACT(keep=0.67, cluster=False), line(0, 90, 180), [0.1, 0.4, 0.3], hidden=hidden)
    assert selection.keep.tolist() == [0, 1]  # 0.5, 0.4, 0.3
    assert selection.assign is None and not selection.key_bias


def test_without_pruning_every_token_is_clustered():
    pruner = build("pact:dbdpc")
    assert pruner.needs(shape_of((1, 4), llm_layers=28)) == (COSINES,)
    assert select(pruner, line(0, 10, 20, 100, -80), [0] * 5).keep.tolist() == [1, 3, 4]


def test_without_the_bias_switch_no_key_is_weighed():
    assert not select(PACT(keep=1.0, proportional=False), line(0, 10), [1, 1]).key_bias


def test_settings_of_the_papers_configurations():
    assert (PACT().layer, PACT().keep, PACT().cutoff, PACT().alpha) == (4, 0.55, 0.21, 1.5)
    assert (build("pact:qwen2-vl").keep, build("pact:qwen2-vl").cutoff) == (0.8, 0.1)
    assert not build("pact:euti").cluster and build("pact:euti").keep == 0.5


@pytest.mark.parametrize(("layers", "layer"), [(28, 4), (32, 5), (16, 2), (36, 5), (6, 1)])
def test_layer_is_mapped_to_the_depth_of_the_model(layers, layer):
    assert PACT().site(shape_of((1, 4), llm_layers=layers)) == Site(IN_LLM, layer)


def test_a_quarter_of_576_over_28_layers_keeps_72_from_layer_4_on():
    plan = PACT().plan(Budget("layer_average", 144), shape_of((24, 24), llm_layers=28))
    assert plan.keeps == {Site(IN_LLM, 4): 72}  # (28 x 144 - 4 x 576) / 24
    assert plan.layer_average == 144


def test_the_floor_is_four_layers_of_28():
    with pytest.raises(BudgetInfeasible) as caught:
        PACT().plan(Budget("layer_average", 81), shape_of((24, 24), llm_layers=28))
    assert caught.value.floor == pytest.approx(4 * 576 / 28)  # 82.3


def test_native_counts_are_known_before_a_run_only_without_clusters():
    shape = shape_of((24, 24), llm_layers=28)
    assert PACT().plan(Budget("native", 0), shape).keeps == {Site(IN_LLM, 4): None}
    plan = build("pact:euti").plan(Budget("native", 0), shape)
    assert plan.keeps == {Site(IN_LLM, 4): 288} and plan.entering == (576,) * 4 + (288,) * 24


@pytest.mark.parametrize("n", [1, 2, 5, 64, 150])
@pytest.mark.parametrize("settings", [{}, {"prune": False}, {"cluster": False}, {"retrieve": False}])
def test_every_count_from_none_to_all_is_met_exactly(n, settings):
    importance = torch.rand(n, generator=torch.Generator().manual_seed(n)).tolist()
    cosines = random_cosines(n)
    for keep in sorted({0, 1, n // 9, n // 2, (2 * n) // 3, n - 1, n}):
        selection = select(PACT(**settings), cosines, importance, keep)
        selection.validate(n, keep)
        assert selection.keep.tolist() == sorted(set(selection.keep.tolist()))
        if selection.assign is not None:
            assert selection.assign[selection.keep].tolist() == list(range(keep))
            assert float(reduce_sizes(selection, torch.ones(n)).sum()) == (selection.assign >= 0).sum()


def test_equal_tokens_do_not_keep_a_budget_from_being_met():
    selection = select(PACT(), torch.ones(6, 6), [1.0] * 6, 4)
    assert selection.assign[selection.keep].tolist() == [0, 1, 2, 3]  # a centre is in its own cluster
    assert reduce_sizes(selection, torch.ones(6)).sum() == 6


def test_all_tokens_kept_is_the_identity():
    selection = select(PACT(), random_cosines(20), [1.0] * 20, 20)
    hidden = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(reduce(selection, hidden), hidden)


def test_promoted_tokens_are_the_farthest_from_their_centre():
    # Any cutoff gives 0 and 90 as one or two clusters; a budget of 3 in {0, 0, 0} + {90, 91} is met by a far one.
    distance = (1 - line(0, 0, 90, 93)).clamp_min(0)
    cutoff, found = exactly(distance, 3)
    assert found.sum() == 3 and found[2] and found[3]
    assert cutoff < 1 - line(0, 3)[0, 1]


def test_a_native_run_and_its_count_asked_for_agree():
    cosines, importance = random_cosines(120), torch.rand(120, generator=torch.Generator().manual_seed(1)).tolist()
    pruner = PACT(prune=False, retrieve=False, cutoff=0.15)
    native = select(pruner, cosines, importance)
    asked = select(pruner, cosines, importance, len(native.keep))
    assert len(asked.keep) == len(native.keep)
    assert len(set(asked.keep.tolist()) & set(native.keep.tolist())) >= 0.8 * len(native.keep)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cutoff", [0.0, 0.1, 0.3, 0.6])
def test_rounds_in_parallel_equal_the_literal_walk(seed, cutoff):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(6, 8, generator=generator)[torch.arange(34) % 6] + 0.4 * torch.randn(34, 8, generator=generator)
    m = 24
    pruner = PACT(keep=m / 34, cutoff=cutoff)
    assert pruner.survivors(34) == m
    selection = select(pruner, unit(keys) @ unit(keys).T, [1.0] * m + [0.0] * 10)
    mine = torch.where(selection.assign < 0, -1, selection.keep[selection.assign.clamp_min(0)])
    assert mine.tolist() == literal(keys[:m], keys[m:], cutoff, 1.5)


def test_of_exactly_equal_distances_the_literal_walk_finds_the_same_centres():
    # Signs in 16 dimensions: distances are multiples of 1/8, many densities are equal and many gaps equal the cutoff.
    keys = torch.randint(0, 2, (200, 16), generator=torch.Generator().manual_seed(0)).float() * 2 - 1
    selection = select(PACT(prune=False, cutoff=0.375), unit(keys) @ unit(keys).T, [1.0] * 200)
    assert selection.keep[selection.assign].tolist() == literal(keys, keys[:0], 0.375, 1.5)
    assert 50 < len(selection.keep) < 150


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"layer": 0}, "layer"),
        ({"layer": 28}, "layer"),
        ({"keep": 0.0}, "keep"),
        ({"keep": 1.1}, "keep"),
        ({"cutoff": -0.1}, "cutoff"),
        ({"alpha": -1.0}, "alpha"),
        ({"prune": False, "cluster": False}, "prune"),
    ],
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(PruningError, match=word):
        PACT(**settings)


@pytest.fixture(scope="module")
def family() -> Qwen3VL:
    return Qwen3VL(qwen3_vl(llm_layers=16))


@pytest.mark.parametrize("grids", [((4, 6),), ((3, 4), (6, 6))])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_model_sees_what_was_planned(family, grids, share):
    engine, inputs = Engine(family, PACT()), family.inputs(processed(grids))
    tokens = round(inputs.shape.n * share)
    plan = engine.plan(Budget("layer_average", tokens), inputs.shape)
    first, again = engine.prefill(inputs, plan), engine.prefill(inputs, plan)
    assert first.realised.entering == plan.entering
    assert abs(plan.layer_average - tokens) <= 1
    assert torch.equal(first.logits, again.logits) and first.realised.kept == again.realised.kept


def test_a_native_run_realises_what_the_picture_asks_for(family):
    engine, inputs = Engine(family, PACT()), family.inputs(processed())
    realised = engine.prefill(inputs, engine.plan(Budget("native", 0), inputs.shape)).realised
    assert realised.entering[:2] == (24, 24) and 1 <= realised.entering[2] <= 13
