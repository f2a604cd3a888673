from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from literal import saint as literal
from tiny import processed, qwen3_vl
from torch.utils.flop_counter import FlopCounterMode
from views import view_of

import methods
from harness.flops.prefill import dims_of, planned_realised
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.validate.golden import validate_file
from methods.base import IN_LLM, IN_VIT, Budget, BudgetInfeasible, PruningError, Shape, Signal, Site, View
from methods.saint import Bipartite, Saint, falling, least, rounds, sparse

SIX = 0, 5, 90, 10, 200, 95  # degrees: even places at 0, 90, 200, odd ones at 5, 10, 95
PRESETS = ["saint", *(f"saint:{preset}" for preset in Saint.presets)]


def at_angles(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


def view_at(pruner: Saint, site: Site, keys: torch.Tensor, keep: int | None, shape: Shape) -> View:
    """keys: (n, h, w) in the LLM, (n, g, h, w) in the ViT, where rows may be patches of the shape's units."""
    each = len(keys) // shape.n
    rows = replace(shape, grids=tuple((each * a, b) for a, b in shape.grids))
    signal = next(s for s in pruner.needs(shape) if s.at == site.layer or (s.tower, s.layer) == ("vit", site.layer))
    return replace(view_of(site, torch.zeros(len(keys), 4), keep, rows, {signal: keys}), shape=shape)


def late(keys: torch.Tensor, keep: int | None = None, **settings) -> list[int]:
    pruner, shape = Saint("late", **settings), Shape(((1, len(keys)),), 24, 32)
    keys = keys if keys.ndim == 3 else keys[:, None]
    return pruner.in_llm(view_at(pruner, pruner.llm_sites(shape)[0], keys, keep, shape)).keep.tolist()


def early(keys: torch.Tensor, keep: int | None = None, grids=None, patches: int = 1, **settings) -> list[int]:
    pruner = Saint("early", **{"graph": "bipartite", **settings})
    shape = Shape(grids or ((1, len(keys)),), 24, 32, patches)
    keys = keys if keys.ndim == 4 else keys[:, None, None]
    return pruner.in_vit(view_at(pruner, pruner.vit_sites(shape)[0], keys, keep, shape)).keep.tolist()


# --- the bipartite graph --------------------------------------------------------------------------------------------


def test_redundancy_counts_similar_odd_tokens_and_rewards_how_similar_they_are():
    # Up to 18 degrees apart is similar (cos 18.19 = 0.95): 0 has two such (5 and 10), 90 has one (95), 200 has none.
    graph = Bipartite.of(at_angles(*SIX), tau=0.95, neighbours=1, gamma=10)
    assert graph.ranked.tolist() == [0, 2, 4] and graph.crowded.tolist() == [True, True, False]
    assert Bipartite.of(at_angles(*SIX), 0.95, 2, 10).crowded.tolist() == [True, False, False]


def test_one_close_neighbour_outweighs_three_far_ones_unless_gamma_is_zero():
    # Place 0 has one at 0 degrees: 1 x exp(10 x 0.5) = 148. Place 2 has three at 53 degrees: 3 x exp(10 x 0.1) = 8.
    keys = at_angles(0, 0, 180, 127, 90, 233, 270, 127)
    close, many = (Bipartite.of(keys, 0.5, 1, gamma).ranked.tolist() for gamma in (10, 0))
    assert close.index(0) < close.index(2) and many.index(2) < many.index(0)


def test_without_neighbours_the_mean_similarity_ranks():
    # No pair is similar: the even ones at 0 and 90 degrees are 80 and 10 from the odd ones.
    assert Bipartite.of(at_angles(0, 80, 90, 80), 0.999, 1, 10).ranked.tolist() == [2, 0]


def test_the_threshold_decides_how_many_even_tokens_go_and_the_odd_ones_stay():
    assert late(at_angles(*SIX), tau=0.95, neighbours=1) == [1, 3, 4, 5]
    assert late(at_angles(*SIX), tau=0.95, neighbours=2) == [1, 2, 3, 4, 5]
    assert late(at_angles(*SIX), tau=0.95, neighbours=3) == [0, 1, 2, 3, 4, 5]
    assert late(at_angles(0, 17, 180, 100), tau=0.95, neighbours=1) == [1, 2, 3]  # cos 17 = 0.956
    assert late(at_angles(0, 19, 180, 100), tau=0.95, neighbours=1) == [0, 1, 2, 3]  # cos 19 = 0.946
    assert late(at_angles(*[30] * 7), tau=0.95, neighbours=3) == [1, 3, 5]
    assert late(at_angles(30), tau=0.95, neighbours=1) == [0]


def test_a_count_takes_the_most_redundant_whatever_the_threshold_says():
    assert late(at_angles(*SIX), keep=5, tau=0.95, neighbours=5) == [1, 2, 3, 4, 5]
    assert late(at_angles(*SIX), keep=4, tau=0.95, neighbours=5) == [1, 3, 4, 5]
    assert late(at_angles(*SIX), keep=3, tau=0.95, neighbours=5) == [1, 3, 5]


def test_length_of_a_key_does_not_matter_and_heads_and_patches_are_averaged():
    keys = at_angles(*SIX)
    scaled = keys * torch.tensor([[1.0], [2], [3], [4], [5], [6]])
    assert late(scaled, tau=0.95, neighbours=1) == [1, 3, 4, 5]
    assert late(torch.stack([keys + 3, keys - 3], dim=1), tau=0.95, neighbours=1) == [1, 3, 4, 5]
    heads = torch.stack([torch.stack([keys + 3, keys], dim=1), torch.stack([keys - 4, keys + 1], dim=1)], dim=1)
    assert early(heads, tau=0.95, neighbours=1, order="raster") == [1, 3, 4, 5]  # (6, 2 patches, 2 heads, 2)


def test_in_the_vit_survivors_stand_by_redundancy_or_in_raster_order():
    assert early(at_angles(*SIX), 5, tau=0.95) == [2, 4, 1, 3, 5]
    assert early(at_angles(*SIX), 5, tau=0.95, order="raster") == [1, 2, 3, 4, 5]
    assert early(at_angles(*SIX), tau=0.95, neighbours=5) == [0, 1, 2, 3, 4, 5]  # none goes: nothing moves


def test_more_than_the_even_half_goes_in_a_second_pass():
    # First 0, 90 and 200 go. Of 5, 10 and 95 the even places are 5 and 95: 5 has a neighbour.
    assert early(at_angles(*SIX), 2, tau=0.95, order="raster") == [3, 5]
    assert early(at_angles(*[30] * 9), 1, tau=0.95) == [7]  # 1, 3, 5, 7 are left, then 3 and 7, then 7


def test_images_of_one_view_lose_the_same_number_the_mean_of_theirs():
    # The first image alone would lose two, the second none: one of each goes, the most redundant.
    keys = at_angles(*SIX, 0, 60, 120, 180, 240, 320)
    settings = {"tau": 0.95, "neighbours": 1, "order": "raster"}
    assert early(keys[:6], **settings) == [1, 3, 4, 5] and len(early(keys[6:], **settings)) == 6
    assert early(keys, None, ((1, 6), (2, 3)), **settings) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    # 5 of 9 equal tokens and none of 1: the mean is 2, and the single token stays.
    assert early(at_angles(*[9] * 9, 0), None, ((1, 9), (1, 1)), **settings) == [1, 3, 4, 5, 6, 7, 8, 9]


def test_single_patches_leave_whole_units_of_each_image():
    patches = {"granularity": "patch", "patches": 4, "order": "raster"}
    assert early(at_angles(*[30] * 16), 12, ((2, 2),), **patches) == [1, 3, 5, 7, *range(8, 16)]
    # The threshold would take 6 of 16 patches (even places 0 to 10); it takes 4, a whole unit.
    spread = at_angles(*[0] * 12, 100, 150, 200, 250)
    assert early(spread, None, ((2, 2),), tau=0.9, neighbours=5, **patches) == [1, 3, 5, 7, *range(8, 16)]


# --- the full graph -------------------------------------------------------------------------------------------------


def test_in_each_round_those_go_that_resemble_all_others_most():
    # Sums of cosines at 0, 10, 25, 90 degrees: 2.89, 3.12, 3.29, 1.60. Without 25: 1.98, 2.16, 1.17.
    keys = at_angles(0, 10, 25, 90)
    assert early(keys, 3, graph="full", step=4) == [0, 1, 3]
    assert early(keys, 2, graph="full", step=4) == [0, 3]
    assert early(keys, 2, graph="full", step=2) == [0, 3]  # 10 and 25 go at once


def test_each_image_has_a_full_graph_of_its_own():
    keys = at_angles(0, 10, 25, 90)
    assert early(torch.cat([keys, keys]), 4, ((1, 4), (2, 2)), graph="full") == [0, 3, 4, 7]
    assert early(torch.cat([keys, keys[:2]]), 3, ((1, 4), (1, 1), (1, 1)), graph="full") == [3, 4, 5]  # one of each


def test_rounds_alternate_as_in_the_authors_code_and_never_stall():
    assert list(rounds(576, 375, 16)) == [36, 15, 35, 14, 34, 13, 33, 12, 9]
    assert list(rounds(10, 7, 16)) == [1, 2]  # theirs: 10 // 16 of 10, and then a division by zero
    assert list(rounds(5, 5, 16)) == []


@pytest.mark.parametrize("n", [1, 17, 64, 200])
def test_sums_of_directions_are_the_sums_of_a_whole_matrix(n):
    keys = torch.randn(n, 24, generator=torch.Generator().manual_seed(n)) + 0.3
    direction = torch.nn.functional.normalize(keys.double())
    for k in {1, n // 3 + 1, n}:
        alive = list(range(n))
        for gone in rounds(n, k, 16):
            total = (direction[alive] @ direction[alive].T).sum(1)
            dropped = set(total.argsort(descending=True)[:gone].tolist())
            alive = [token for place, token in enumerate(alive) if place not in dropped]
        assert sparse(keys, k, 16).tolist() == alive and len(alive) == k


# --- plans ----------------------------------------------------------------------------------------------------------

LLAVA = Shape(((24, 24),), 24, 32, unit_patches=1)


def test_where_the_authors_act_and_what_they_keep():
    one = Site(IN_VIT, 19, "attention")
    assert Saint().plan(Budget("native", 0), LLAVA).keeps == {one: 375} and Saint().llm_sites(LLAVA) == ()
    hybrid = methods.build("saint:hybrid")
    assert hybrid.llm_sites(LLAVA) == tuple(Site(IN_LLM, layer) for layer in range(8, 18))
    assert hybrid.needs(LLAVA)[:2] == (Signal("keys", "vit", 19, rope=False), Signal("keys", layer=7, at=8))
    assert hybrid.plan(Budget("native", 0), LLAVA).keeps == {one: 375, **dict.fromkeys(hybrid.llm_sites(LLAVA))}
    group = methods.build("saint:early-group")
    assert group.vit_sites(LLAVA) == tuple(Site(IN_VIT, layer, "attention") for layer in range(12))
    assert group.plan(Budget("native", 0), LLAVA).keeps == dict.fromkeys(group.vit_sites(LLAVA))
    assert methods.build("saint:early-unstructured").granularity == "patch"
    assert (Saint().tau, Saint().neighbours, Saint().gamma, Saint().step) == (0.83, 5, 10, 16)


@pytest.mark.parametrize(("layers", "sites"), [(28, range(7, 16)), (36, range(9, 20)), (16, range(4, 9)), (6, (2, 3))])
def test_the_same_part_of_another_llm_is_cut(layers, sites):
    assert [site.layer for site in Saint("late").llm_sites(Shape(((2, 2),), 24, layers))] == list(sites)


def test_the_floor_of_late_is_half_of_the_tokens_at_every_cut():
    # 576 in 8 layers, then 288, 144, 72, 36, 18, 9, 4, 2, 1 in one each, and 1 in the last 15: 5197.
    assert least(576, (8, *[1] * 9, 15)) == 5197
    with pytest.raises(BudgetInfeasible, match="late") as caught:
        Saint("late").plan(Budget("layer_average", 162), LLAVA)
    assert caught.value.floor == 5197 / 32  # 28.2 %
    assert Saint("late").plan(Budget("layer_average", 163), LLAVA).layer_average == pytest.approx(163, abs=0.5)
    with pytest.raises(BudgetInfeasible):
        Saint("late").plan(Budget("interface_kept", 300), LLAVA)


def test_half_on_the_average_is_a_cut_of_14_percent_behind_ten_layers():
    counts = list(Saint("late").plan(Budget("layer_average", 288), LLAVA).keeps.values())
    assert len(counts) == 10
    assert all(after / before == pytest.approx(0.86, abs=0.01) for before, after in pairwise([576, *counts]))


def test_the_hybrid_keeps_the_authors_share_in_the_vit_while_the_llm_drops_no_more_than_half():
    hybrid = methods.build("saint:hybrid")

    def entering(tokens: int) -> int:
        return hybrid.plan(Budget("layer_average", tokens), LLAVA).entering[0]

    assert [entering(tokens) for tokens in (460, 288, 144, 63)] == [460, 375, 288, 126]
    assert hybrid.plan(Budget("interface_kept", 200), LLAVA).layer_average == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("layers", [6, 16, 32])
@pytest.mark.parametrize("grids", [((3, 5),), ((8, 8), (1, 1), (3, 3)), ((24, 24),)])
def test_every_budget_from_the_floor_on_is_met(preset, layers, grids):
    pruner, shape = methods.build(preset), Shape(grids, 8, layers)
    for tokens in range(1, shape.n, max(1, shape.n // 40)):
        try:
            plan = pruner.plan(Budget("layer_average", tokens), shape)
        except BudgetInfeasible as error:
            assert tokens < error.floor
            continue
        assert abs(plan.layer_average - tokens) <= 0.6
        alive = shape.n
        for site, k in plan.keeps.items():
            assert (len(grids) if site.hook == IN_VIT else max(1, alive // 2)) <= k < alive
            alive = k
        assert alive == plan.entering[-1]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("n", [2, 7, 24, 65])
def test_every_count_is_met_by_distinct_rows_that_stay_the_same(preset, n):
    pruner, shape = methods.build(preset), Shape(((1, n),), 8, 16)
    generator = torch.Generator().manual_seed(n)
    for site in (*pruner.vit_sites(shape)[:1], *pruner.llm_sites(shape)[:1]):
        each, least_rows = (4, 1) if pruner.granularity == "patch" else (1, max(1, n // 2 * (site.hook == IN_LLM)))
        inner = (4 // each, 2, 8) if site.hook == IN_VIT else (2, 8)
        keys = torch.randn(n * each, *inner, generator=generator)
        for k in range(least_rows, n + 1):
            decide = pruner.in_vit if site.hook == IN_VIT else pruner.in_llm
            kept = decide(view_at(pruner, site, keys, k * each, shape)).keep.tolist()
            assert len(kept) == len(set(kept)) == k * each and set(kept) <= set(range(n * each))
            assert pruner.order == "official" or kept == sorted(kept)
            assert kept == decide(view_at(pruner, site, keys, k * each, shape)).keep.tolist()


def test_falling_takes_the_same_share_and_the_last_count_the_rest():
    assert falling(100, 100 + 50 + 25, (1, 1, 1)) == (50, 25)
    assert falling(100, 300, (1, 1, 1)) == (100, 100)
    assert falling(8, 8 + 5 + 3, (1, 1, 1)) == (5, 3)


def test_fewer_tokens_than_images_is_refused():
    with pytest.raises(BudgetInfeasible) as caught:
        Saint().plan(Budget("layer_average", 2), Shape(((2, 2),) * 3, 8, 6))
    assert caught.value.floor == 3


@pytest.mark.parametrize("settings", [
    {"stage": "never"}, {"graph": "tree"}, {"granularity": "pixel"}, {"order": "random"}, {"tau": 1.5},
    {"vit_keep": 0.0}, {"neighbours": 0}, {"step": 0}, {"layer": 24}, {"first": 9, "last": 8}, {"last": 31},
])  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(PruningError, match=next(iter(settings))):
        Saint(**settings)


# --- a kind of golden file that is in no folder here ----------------------------------------------------------------


def test_a_cascade_of_ten_layers_is_judged_layer_by_layer(tmp_path):
    generator, alive = torch.Generator().manual_seed(0), torch.arange(80)
    arrays, counts = {"sim_threshold": np.float64(0.6)}, [80]
    for layer in range(7, 17):
        keys = torch.randn(1, len(alive), 16, generator=generator) + 1.5
        kept = literal.drop_llm(keys, 0.6)
        arrays |= {f"keys_layer{layer}": keys.numpy(), f"kept_local_layer{layer}": kept.numpy()}
        alive = alive[kept]
        counts.append(len(alive))
    arrays |= {"tokens_per_layer": np.array(counts), "final_original_indices": alive.numpy()}
    assert len(set(counts)) >= 4
    path = tmp_path / "saint_llm_cascade_l7_l16.npz"
    np.savez(path, **arrays)
    result = validate_file(path)
    assert result.status == "pass", result.detail
    for name in ("kept_local_layer9", "tokens_per_layer", "final_original_indices"):
        wrong = arrays[name].copy()
        wrong[-1] += 1
        np.savez(path, **{**arrays, name: wrong})
        assert validate_file(path).status == "fail"


# --- in models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_its_products_are_counted_as_torch_counts_them(preset):
    pruner, shape = methods.build(preset), Shape(((4, 6),), 8, 16, 4, vit_head_width=5, llm_head_width=7)
    plan, alive, told = pruner.plan(Budget("layer_average", 14), shape), shape.n, 0
    with FlopCounterMode(display=False) as counter:
        for site, k in plan.keeps.items():
            in_vit = site.hook == IN_VIT
            each = 4 if in_vit and pruner.granularity == "patch" else 1
            keys = torch.randn(alive * each, *((4 // each, 2, 5) if in_vit else (2, 7)))
            now = replace(shape, grids=((1, alive),))
            (pruner.in_vit if in_vit else pruner.in_llm)(view_at(pruner, site, keys, k * each, now))
            told += pruner.selection_flops(site, alive * each, k * each, 8, shape)
            alive = k
    assert told == counter.get_total_flops() > 0


@pytest.fixture(scope="module")
def family():
    return Qwen3VL(qwen3_vl())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("grids", [((4, 6),), ((6, 6), (1, 1), (3, 4))])
@pytest.mark.parametrize("percent", [80, 60])
def test_a_model_runs_what_was_planned(family, preset, grids, percent):
    engine, inputs = Engine(family, methods.build(preset)), family.inputs(processed(grids))
    plan = engine.plan(Budget("layer_average", inputs.shape.n * percent // 100), inputs.shape)
    realised = engine.prefill(inputs, plan).realised
    told = planned_realised(dims_of(family.model.config), inputs.shape, plan, inputs.text, engine.pruner)
    assert plan.keeps and realised.entering == plan.entering
    assert (told.vit_tokens, told.vit_mlp_tokens) == (realised.vit_tokens, realised.vit_mlp_tokens)
    assert told.sites == realised.sites and told.selection_flops == realised.selection_flops > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_a_native_run_realises_what_the_picture_asks_for(family, preset):
    engine = Engine(family, methods.build(preset, tau=0.5, neighbours=1))
    inputs = family.inputs(processed(((6, 6), (3, 4))))
    entering = engine.prefill(inputs, engine.plan(Budget("native", 0), inputs.shape)).realised.entering
    assert entering[-1] < inputs.shape.n and list(entering) == sorted(entering, reverse=True)


def test_single_patches_are_recorded_beside_the_units_they_came_from(family):
    inputs, kept = family.inputs(processed()), {}
    for preset in ("early-group", "early-unstructured"):
        engine = Engine(family, methods.build(f"saint:{preset}"))
        kept[preset] = engine.prefill(inputs, engine.plan(Budget("layer_average", 12), inputs.shape)).realised.kept
    assert list(kept["early-group"]) == [f"in-vit:{layer}:attention" for layer in range(4)]
    assert int(kept["early-group"]["in-vit:3:attention"], 16).bit_count() == 12
    assert int(kept["early-unstructured"]["patches"], 16).bit_count() == 48
