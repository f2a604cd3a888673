from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import gelu, layer_norm
from views import shape_of, view_of

from methods.base import (
    AGGREGATE,
    IN_VIT,
    VISUAL,
    Budget,
    BudgetInfeasible,
    MissingSignal,
    ModelInfo,
    PruningError,
    Signal,
    Site,
    View,
)
from methods.quietprune import QuietPrune, condition_number, cuts, gelu_inverse, inverse, stage_counts
from methods.selection import Selection, aggregate

FIRST, SECOND, THIRD = (Site(IN_VIT, layer) for layer in (1, 3, 5))  # the cuts of a ViT of 8 blocks
INIT = QuietPrune(adapter="untrained")


def row_signal(site: Site, queries: str = "extra") -> Signal:
    return Signal("rows", tower="vit", layer=site.layer, queries=queries)


def first_view(attention: torch.Tensor, keep: int, *grids: tuple[int, int], site: Site = FIRST) -> View:
    """A view before anything was dropped; attention: (n, g)."""
    n, g = attention.shape
    hidden = torch.arange(n * g).view(n, g, 1).float()
    return view_of(site, hidden, keep, shape_of(*grids), {row_signal(site): attention})


def model_info(width: int = 8, out: int = 24, bias: float = 0.0, seed: int = 0, family: str = "qwen3_vl") -> ModelInfo:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5

    projector = {
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
        "linear_fc1.weight": normal(4 * width, 4 * width),
        "linear_fc1.bias": normal(4 * width) + bias,
        "linear_fc2.weight": normal(out, 4 * width),
        "linear_fc2.bias": normal(out),
    }
    return ModelInfo(family, 8, 16, width, out, 4, "mrope", projector, "hash")


def project(model: ModelInfo, patches: torch.Tensor) -> torch.Tensor:
    """The family's own forward pass: (n, 4, d) -> (n, D)."""
    w = model.projector
    normed = layer_norm(patches, (patches.shape[-1],), w["norm.weight"], w["norm.bias"])
    hidden = gelu(normed.flatten(1) @ w["linear_fc1.weight"].T + w["linear_fc1.bias"])
    return hidden @ w["linear_fc2.weight"].T + w["linear_fc2.bias"]


# --- where and how many -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(4, (1, 2, 3)), (8, (2, 4, 6)), (23, (6, 12, 17)), (24, (6, 12, 18)), (27, (7, 14, 20)), (45, (11, 23, 34))],
)
def test_cuts_lie_at_a_quarter_a_half_and_three_quarters_of_the_depth(layers, expected):
    assert cuts(layers) == expected


def test_a_vit_of_three_blocks_is_refused():
    with pytest.raises(PruningError, match="3 blocks"):
        cuts(3)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("geometric", (203, 160, 127)),
        ("linear", (213, 170, 127)),
        ("front", (127, 127, 127)),
        ("late", (256, 256, 127)),
    ],
)
def test_units_alive_at_half_of_256(schedule, expected):
    assert stage_counts(256, 127, schedule) == expected


@pytest.mark.parametrize("schedule", ["geometric", "linear", "front", "late"])
def test_counts_never_rise_and_end_exactly(schedule):
    for n in (1, 2, 3, 7, 64, 65):
        for kept in range(1, n + 1):
            first, second, third = stage_counts(n, kept, schedule)
            assert n >= first >= second >= third == kept


def test_the_plan_counts_the_aggregate_and_acts_after_the_last_block_before_each_cut():
    # 64 units, 33 tokens: 32 units and the aggregate. 64 * (1/2)^(1/3) = 50.8, 64 * (1/2)^(2/3) = 40.3.
    plan = INIT.plan(Budget("layer_average", 33), shape_of((8, 8)))
    assert dict(plan.keeps) == {FIRST: 52, SECOND: 41, THIRD: 33} and plan.entering == (33,) * 16
    plain = replace(INIT, aggregate=False).plan(Budget("layer_average", 32), shape_of((8, 8)))
    assert dict(plain.keeps) == {FIRST: 51, SECOND: 40, THIRD: 32}


def test_signals_are_the_rows_of_the_blocks_before_the_cuts():
    assert INIT.needs(shape_of((8, 8), vit_layers=24)) == tuple(
        Signal("rows", tower="vit", layer=layer, queries="extra") for layer in (5, 11, 17)
    )


def test_one_token_is_too_few_for_a_unit_and_an_aggregate():
    with pytest.raises(BudgetInfeasible, match=">= 2") as caught:
        INIT.plan(Budget("layer_average", 1), shape_of((8, 8)))
    assert caught.value.floor == 2
    assert replace(INIT, aggregate=False).plan(Budget("layer_average", 1), shape_of((8, 8))).keeps[THIRD] == 1


def test_each_image_needs_two_tokens():
    with pytest.raises(BudgetInfeasible) as caught:
        INIT.plan(Budget("layer_average", 4), shape_of((8, 8), (2, 2), (1, 1)))
    assert caught.value.floor == 5  # 2 + 2 + the one unit of the last


def test_a_native_run_is_refused():
    with pytest.raises(BudgetInfeasible, match="--budget"):
        INIT.plan(Budget("native", 0), shape_of((8, 8)))


@pytest.mark.parametrize("schedule", ["geometric", "linear", "front", "late"])
@pytest.mark.parametrize("grids", [((4, 4),), ((3, 5), (2, 2)), ((6, 6), (1, 1), (2, 5))])
def test_every_budget_is_met_by_the_three_cuts_with_nested_survivors(grids, schedule):
    pruner = replace(INIT, schedule=schedule)
    shape = shape_of(*grids)
    for total in range(sum(min(2, n) for n in shape.images), shape.n):
        plan = pruner.plan(Budget("layer_average", total), shape)
        view = first_view(torch.rand(shape.n, 4, generator=torch.Generator().manual_seed(total)), 0, *grids)
        for site, keep in plan.keeps.items():
            rows = torch.rand(view.n, 4, generator=torch.Generator().manual_seed(view.n))
            view = replace(view, site=site, keep=keep, signals={row_signal(site): rows})
            view = after(view, pruner.in_vit(view), site)
            assert view.n == keep
        assert view.n == total


def after(view: View, selection: Selection, site: Site) -> View:
    """The rows that the next cut would see: kept units, then one aggregate for each image that gathered anything."""
    keep, weights = selection.keep, selection.aggregate
    assert weights is not None and (view.kind[keep] == VISUAL).all() and (keep.diff() > 0).all()
    gathered = [i for i in range(view.images) if bool(weights[view.image == i].any())]
    new = [
        aggregate(weights * (view.image == i)[:, None], view.hidden).expand(1, *view.hidden.shape[1:]) for i in gathered
    ]
    ones = torch.ones(len(gathered), dtype=torch.int64)
    return replace(
        view,
        hidden=torch.cat([view.hidden[keep], *new]),
        image=torch.cat([view.image[keep], torch.tensor(gathered, dtype=torch.int64)]),
        unit=torch.cat([view.unit[keep], -ones]),
        kind=torch.cat([view.kind[keep], ones * AGGREGATE]),
        size=torch.ones(len(keep) + len(gathered)),
    )


# --- what is kept, and what the aggregate is --------------------------------------------------------------------------


def test_a_group_scores_the_mean_of_its_patches():
    attention = torch.tensor([[0.0, 0.9], [0.3, 0.3], [0.5, 0.5], [0.1, 0.0]])  # means .45, .3, .5, .05
    assert INIT.in_vit(first_view(attention, 3, (2, 2))).keep.tolist() == [0, 2]  # third token: the aggregate


def test_ties_go_to_the_lower_index():
    assert INIT.in_vit(first_view(torch.full((6, 4), 0.1), 4, (2, 3))).keep.tolist() == [0, 1, 2]


def test_the_aggregate_is_the_attention_weighted_mean_of_what_is_dropped():
    attention = torch.tensor([[0.0, 0.9], [0.3, 0.1], [0.5, 0.5], [0.1, 0.0]])
    weights = INIT.in_vit(first_view(attention, 3, (2, 2))).aggregate
    torch.testing.assert_close(weights, torch.tensor([[0, 0], [0.6, 0.2], [0, 0], [0.2, 0]]))
    plain = replace(INIT, aggregate_norm="none").in_vit(first_view(attention, 3, (2, 2))).aggregate
    torch.testing.assert_close(plain, torch.tensor([[0, 0], [0.3, 0.1], [0, 0], [0.1, 0]]))


def test_equal_scores_give_the_arithmetic_mean_of_the_dropped_patches():
    view = first_view(torch.full((4, 4), 0.05), 2, (2, 2))  # hidden 0..15; unit 0 stays, 4..15 are gathered
    weights = INIT.in_vit(view).aggregate
    assert aggregate(weights, view.hidden).item() == pytest.approx(sum(range(4, 16)) / 12)


def test_the_old_aggregate_is_folded_in_with_its_own_attention_and_never_kept():
    # Rows: units 0, 2, 3 and the aggregate (its one token repeated, its attention in patch 0). Keep one unit.
    hidden = torch.tensor([[1.0, 2], [3, 4], [5, 6], [10, 10]])[..., None]
    attention = torch.tensor([[0.1, 0.1], [0.3, 0.3], [0.2, 0.0], [0.8, 0.0]])
    shape = shape_of((2, 2))
    view = View(
        SECOND, hidden, 2, torch.zeros(4, dtype=torch.int64), torch.tensor([0, 2, 3, -1]),
        torch.tensor([VISUAL, VISUAL, VISUAL, AGGREGATE]), torch.ones(4), shape,
        signals={row_signal(SECOND): attention},
    )  # fmt: skip
    selection = INIT.in_vit(view)
    assert selection.keep.tolist() == [1]
    # (0.1 * 1 + 0.1 * 2 + 0.2 * 5 + 0.8 * 10) / 1.2
    assert aggregate(selection.aggregate, hidden).item() == pytest.approx(9.3 / 1.2)
    selection.validate(4, asked=2, aggregates=1)


def test_an_image_that_loses_nothing_gets_no_aggregate_and_images_do_not_compete():
    attention = torch.cat([torch.full((4, 4), 0.9), torch.full((1, 4), 0.01), torch.full((4, 4), 0.001)])
    selection = INIT.in_vit(first_view(attention, 5, (2, 2), (1, 1), (2, 2)))
    assert selection.keep.tolist() == [0, 4, 5]  # one unit and an aggregate, the lone unit, one and an aggregate
    mass = selection.aggregate.sum(dim=1)
    assert [mass[:4].sum().item(), mass[4].item(), mass[5:].sum().item()] == pytest.approx([1, 0, 1])


def test_without_aggregation_the_budget_is_all_units():
    selection = replace(INIT, aggregate=False).in_vit(first_view(torch.rand(6, 4), 3, (2, 3)))
    assert len(selection.keep) == 3 and selection.aggregate is None


def test_unstructured_keeps_single_patches_by_their_own_attention_four_to_a_unit():
    single = replace(INIT, granularity="patch", aggregate=False)
    attention = torch.tensor([9, 1, 1, 1, 8, 7, 1, 1, 1, 1, 1, 6.0])[:, None]
    view = replace(first_view(attention, 4, (1, 12)), shape=shape_of((1, 3)))  # 12 patches of 3 units, one stays
    assert single.in_vit(view).keep.tolist() == [0, 4, 5, 11]
    assert single.plan(Budget("layer_average", 32), shape_of((8, 8))).keeps[THIRD] == 32
    with pytest.raises(PruningError, match="set aggregate to false"):
        replace(INIT, granularity="patch")


def test_planted_relevance_survives_every_cut():
    shape, wanted = shape_of((8, 8)), {3, 17, 40, 63}
    attention = torch.full((64, 4), 0.001)
    attention[list(wanted)] = 0.1
    for site, keep in INIT.plan(Budget("layer_average", 5), shape).keeps.items():
        kept = INIT.in_vit(first_view(attention, keep, (8, 8), site=site)).keep.tolist()
        assert wanted <= set(kept) and len(kept) == keep - 1
    assert set(kept) == wanted


def test_saliency_ranks_by_attention_received_from_all_patches_and_adds_no_token():
    pruner = QuietPrune(guidance="saliency")
    rows = torch.tensor([[[0.1, 0.1], [0.4, 0.4]], [[0.2, 0.2], [0.0, 0.0]], [[0.3, 0.3], [0.2, 0.2]]])  # (q, n, g)
    view = first_view(torch.zeros(2, 2), 1, (1, 2))
    received = row_signal(FIRST, "received")
    equal = replace(view, signals={received: rows.mean(0)})
    assert replace(pruner, aggregate=False).in_vit(equal).keep.tolist() == [0]  # .2 against .2: the lower index
    rows[0, 1] += 0.1
    higher = replace(view, signals={received: rows.mean(0)})
    assert replace(pruner, aggregate=False).in_vit(higher).keep.tolist() == [1]
    assert pruner.extra_vit_token_count() == 0 and pruner.prepare(model_info()) is None
    assert pruner.extra_vit_tokens(torch.ones(1, 24), torch.ones(4, 8), None) is None
    assert INIT.extra_vit_token_count() == 1


# --- the adapter ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n"), [(6, 4), (4, 6), (5, 5)])
def test_ridge_inverse_equals_both_textbook_forms(m, n):
    weight = torch.randn(m, n, generator=torch.Generator().manual_seed(m), dtype=torch.float64)
    ridge = 0.3 * weight.square().sum() / min(m, n)
    primal = torch.linalg.inv(weight.T @ weight + ridge * torch.eye(n).double()) @ weight.T
    dual = weight.T @ torch.linalg.inv(weight @ weight.T + ridge * torch.eye(m).double())
    mine = inverse(weight, alpha=0.3, gain=False)
    torch.testing.assert_close(mine, primal, atol=1e-10, rtol=0)
    torch.testing.assert_close(mine, dual, atol=1e-10, rtol=0)
    assert torch.trace(inverse(weight, alpha=0.3, gain=True) @ weight).item() == pytest.approx(min(m, n))


def test_alpha_zero_is_the_pseudo_inverse():
    weight = torch.tensor([[2.0, 0, 0], [0, 4, 0]], dtype=torch.float64)
    expected = torch.tensor([[0.5, 0], [0, 0.25], [0, 0]], dtype=torch.float64)
    torch.testing.assert_close(inverse(weight, alpha=0, gain=False), expected)


def test_ridge_shrinks_by_hand():
    # W = diag(1, 3): mean squared singular value 5, lambda = 0.2 * 5 = 1: 1/(1+1), 3/(9+1).
    weight = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(inverse(weight, 0.2, gain=False), torch.diag(torch.tensor([0.5, 0.3]).double()))


def test_gelu_inverse_undoes_gelu_and_clamps_below_its_least_value():
    y = torch.tensor([-0.16, -0.05, 0.0, 0.5, 3.0, 20.0])
    torch.testing.assert_close(gelu(gelu_inverse(y)), y, atol=1e-5, rtol=1e-5)
    assert gelu_inverse(torch.tensor([-5.0])).item() == pytest.approx(-0.7518, abs=1e-3)


def test_an_exactly_invertible_projector_is_inverted():
    model = model_info(width=8, out=32, bias=5.0)  # square, and GELU is about the identity on positive inputs
    patches = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1))
    pruner = QuietPrune(adapter="untrained", alpha=0.0, act="gelu_inverse")
    recovered = pruner.prepare(model)(project(model, patches).float())
    expected = layer_norm(patches, (8,)).mean(dim=1)
    assert torch.cosine_similarity(recovered, expected).item() > 0.99
    first = replace(pruner, slot_pool="first").prepare(model)(project(model, patches))
    assert torch.cosine_similarity(first, layer_norm(patches, (8,))[:, 0]).item() > 0.99


@pytest.mark.parametrize("out", [16, 32, 48])
def test_the_default_inverse_points_the_right_way_and_a_random_one_does_not(out):
    model = model_info(width=8, out=out)
    generator = torch.Generator().manual_seed(2)
    patches = torch.randn(200, 1, 8, generator=generator) + 0.5 * torch.randn(200, 4, 8, generator=generator)
    expected = layer_norm(patches, (8,)).mean(dim=1)

    def agreement(pruner: QuietPrune) -> float:
        adapter = pruner.prepare(model)
        recovered = torch.cat([adapter(row[None]) for row in project(model, patches)])
        return torch.cosine_similarity(recovered, expected).mean().item()

    with torch.no_grad():
        assert agreement(INIT) > 0.4
        assert abs(agreement(replace(INIT, init="random"))) < 0.3


def test_norm_is_inverted_channel_by_channel_and_small_gammas_are_clamped():
    model = model_info(width=4)
    model.projector["norm.weight"] = torch.tensor([2.0, -0.5, 0.0, -1e-9])
    model.projector["norm.bias"] = torch.tensor([1.0, 1.0, 1.0, 0.0])
    norm = INIT.prepare(model).inverse_norm
    assert norm.weight.tolist() == pytest.approx([0.5, -2, 1000, -1000])
    assert norm.bias.tolist() == pytest.approx([-0.5, 2, -1000, 0])


def test_biases_are_carried_through_the_inverse():
    model = model_info(out=32)
    adapter = replace(INIT, alpha=0.0, gain=False).prepare(model)
    zero = adapter.inverse_2(model.projector["linear_fc2.bias"])  # the projector's answer to a hidden state of zero
    assert zero.abs().max().item() < 1e-3


def test_q_cls_has_the_scale_and_dtype_of_the_patches():
    patches = 7 * torch.randn(40, 8, generator=torch.Generator().manual_seed(3)).bfloat16()
    adapter, question = INIT.prepare(model_info()), torch.randn(5, 24, generator=torch.Generator().manual_seed(4))
    token = INIT.extra_vit_tokens(question, patches, adapter)
    assert token.shape == (1, 8) and token.dtype == torch.bfloat16

    def rms(x):
        return x.float().square().mean().sqrt().item()

    assert rms(token) == pytest.approx(rms(patches), rel=0.01)
    unscaled = replace(INIT, qcls_scale="none").extra_vit_tokens(question, patches.float(), adapter)
    torch.testing.assert_close(unscaled, adapter(question))
    assert torch.cosine_similarity(unscaled, token.float()).item() > 0.999


def test_q_cls_is_the_mean_over_question_tokens_and_differs_between_questions():
    adapter, generator = INIT.prepare(model_info()), torch.Generator().manual_seed(5)
    one, other = torch.randn(1, 24, generator=generator), torch.randn(1, 24, generator=generator)
    torch.testing.assert_close(adapter(torch.cat([one, other])), (adapter(one) + adapter(other)) / 2)
    assert torch.cosine_similarity(adapter(one), adapter(other)).item() < 0.9


def test_a_question_without_tokens_is_refused():
    with pytest.raises(PruningError, match="question"):
        INIT.extra_vit_tokens(torch.zeros(0, 24), torch.ones(4, 8), INIT.prepare(model_info()))


def test_all_adapter_parameters_get_gradients():
    adapter = INIT.prepare(model_info())
    token = INIT.extra_vit_tokens(torch.randn(3, 24), torch.randn(12, 8), adapter)
    token.square().mul(torch.arange(8)).sum().backward()
    names = {name for name, parameter in adapter.named_parameters() if parameter.grad.abs().sum() > 0}
    assert names == {
        "inverse_2.weight", "inverse_2.bias", "inverse_1.weight", "inverse_1.bias",
        "inverse_norm.weight", "inverse_norm.bias",
    }  # fmt: skip


def test_a_trained_adapter_is_loaded_bit_for_bit_and_not_shared():
    model = model_info()
    trained = {name: tensor + 1 for name, tensor in INIT.prepare(model).state_dict().items()}
    adapter = QuietPrune().prepare(replace(model, adapter=trained))
    assert all(torch.equal(tensor, trained[name]) for name, tensor in adapter.state_dict().items())
    trained["inverse_1.bias"].zero_()
    assert adapter.inverse_1.bias.abs().sum() > 0


def test_the_default_without_a_trained_adapter_says_what_to_do():
    with pytest.raises(PruningError, match=r"train-adapter.*quietprune:init"):
        QuietPrune().prepare(model_info())


def test_an_adapter_of_other_shapes_is_refused():
    other = INIT.prepare(model_info(width=4)).state_dict()
    with pytest.raises(PruningError, match="another projector"):
        QuietPrune().prepare(replace(model_info(), adapter=other))


def test_another_projector_is_refused_by_name():
    with pytest.raises(MissingSignal, match=r"that of 'resampler' has query\.weight"):
        INIT.prepare(replace(model_info(family="resampler"), projector={"query.weight": torch.ones(2, 2)}))


def test_random_initialisation_is_seeded_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again = (replace(INIT, init="random", init_seed=4).prepare(model_info()) for _ in range(2))
    INIT.prepare(model_info())
    other = replace(INIT, init="random", init_seed=5).prepare(model_info())
    assert torch.equal(first.inverse_1.weight, again.inverse_1.weight)
    assert not torch.equal(first.inverse_1.weight, other.inverse_1.weight)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", [{"adapter": "mine"}, {"schedule": "steep"}, {"alpha": -1.0}, {"act": "relu"}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(PruningError, match=next(iter(settings))):
        QuietPrune(**settings)


# --- other projectors ---------------------------------------------------------------------------------------------


def projector_of(kind: str, wide: int = 8, hidden: int = 6, out: int = 5) -> dict[str, torch.Tensor]:
    """Random layers under a family's names."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    norm, first, last = {
        "qwen2_5_vl": ("ln_q", "mlp.0", "mlp.2"), "internvl": ("layer_norm", "linear_1", "linear_2"),
        "llava": ("", "linear_1", "linear_2"),
    }[kind]  # fmt: skip
    tensors = {f"{first}.weight": draw(hidden, wide), f"{last}.weight": draw(out, hidden)}
    tensors |= {f"{first}.bias": draw(hidden), f"{last}.bias": draw(out)}
    if norm:
        tensors[f"{norm}.weight"] = draw(2 if kind == "qwen2_5_vl" else wide)
    return tensors | ({"layer_norm.bias": draw(wide)} if kind == "internvl" else {})


@pytest.mark.parametrize(
    ("kind", "patches", "norm"),
    [("qwen2_5_vl", 4, {"weight": (2,)}), ("internvl", 4, {"weight": (8,), "bias": (8,)}), ("llava", 1, {})],
)
def test_every_familys_projector_is_run_backwards(kind, patches, norm):
    """Against the same maths written out: two linear layers, GELU between, the family's norm, mean over slots."""
    projector = projector_of(kind)
    model = replace(model_info(family=kind), projector=projector, unit_patches=patches, vit_width=8 // patches)
    adapter = INIT.prepare(model)
    state = adapter.state_dict()
    shapes = {name.partition(".")[2]: tuple(t.shape) for name, t in state.items() if name.startswith("inverse_norm")}
    assert shapes == norm
    question = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    hidden = gelu(question @ state["inverse_2.weight"].T + state["inverse_2.bias"])
    hidden = hidden @ state["inverse_1.weight"].T + state["inverse_1.bias"]
    if kind == "qwen2_5_vl":
        rows = hidden.view(3, 4, 2)
        hidden = rows / (rows.square().mean(-1, keepdim=True) + 1e-6).sqrt() * state["inverse_norm.weight"]
    elif kind == "internvl":
        hidden = layer_norm(hidden, (8,), state["inverse_norm.weight"], state["inverse_norm.bias"], eps=1e-6)
    torch.testing.assert_close(adapter(question), hidden.reshape(3 * patches, -1).mean(0, keepdim=True))
    first = [name for name in projector if name in ("mlp.0.weight", "linear_1.weight")]
    assert torch.allclose(state["inverse_1.weight"], inverse(projector[first[0]].double(), 0.3, True).float())


def test_condition_numbers_are_told_for_what_is_inverted():
    assert condition_number(torch.diag(torch.tensor([8.0, 2.0, 4.0]))) == pytest.approx(4)
    assert condition_number(torch.tensor([[3.0, 0, 0], [0, 2.0, 0]])) == pytest.approx(1.5)
    model = replace(model_info(family="llava"), projector=projector_of("llava"))
    (note,) = INIT.notes(model)
    ratio = torch.linalg.cond(model.projector["linear_1.weight"].double()).item()
    assert f"{ratio:.3g} (first layer)" in note
    assert replace(INIT, init="random").notes(model) == QuietPrune().notes(model) == ()
