from __future__ import annotations

import pytest
import torch
from literal.sparsevlm import merged as literal
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods import build
from methods.base import IN_LLM, Budget, BudgetInfeasible, PruningError, Selection, Signal, Site, View
from methods.selection import reduce, reduce_sizes
from methods.sparsevlm import AFFINITY, LISTS, SparseVLM, cluster, clusters_of, kept_of, raters, recycled_of

V2 = SparseVLM(version="2.0")
FULL = (24, 24)


def view_at_3(pruner: SparseVLM, rows, keep: int, affinity=None, gravity=None, hidden=None) -> View:
    """A cut at layer 3 of 32. rows: (m, n), or (h, m, n) for v2.0; by default all text tokens rate."""
    m, n = rows.shape[-2:]
    shape = shape_of((1, n), llm_layers=32)
    own = Signal("rows", layer=2, queries="text", per_head=pruner.version == "2.0", at=3)
    assert own in pruner.needs(shape)
    affinity = torch.zeros(n, m) if affinity is None else affinity
    signals = {AFFINITY: affinity, own: rows, Signal("gravity", at=3): torch.ones(m, n) if gravity is None else gravity}
    hidden = torch.arange(float(n))[:, None].expand(n, 2) if hidden is None else hidden
    return view_of(Site(IN_LLM, 3), hidden, keep, shape, signals)


def select(pruner: SparseVLM, rows, keep: int, *signals, **named) -> Selection:
    """What stays of `view_at_3`."""
    selection = pruner.in_llm(view_at_3(pruner, rows, keep, *signals, **named))
    selection.validate(rows.shape[-1], keep)
    return selection


def relation(pruner: SparseVLM, rows, affinity) -> list[float]:
    return pruner.relation(view_at_3(pruner, rows, 1, affinity)).tolist()


def plan_of(pruner: SparseVLM, n: int, tokens: int, layers: int = 32):
    return pruner.plan(Budget("layer_average", tokens), shape_of((1, n), llm_layers=layers))


def test_raters_are_text_tokens_with_more_than_the_mean_share():
    # Two visual tokens; softmax over three words of (0, ln 2, 0) = 1/4, 1/2, 1/4 for each: only the middle one rates.
    affinity = torch.tensor([[0.0, 2.0, 1.0], [0.0, 2.0, 1.0]])
    assert raters(affinity.log1p()).tolist() == [False, True, False]  # 1/6, 3/6, 2/6 against 2/6


def test_where_no_word_stands_out_all_rate():
    assert raters(torch.zeros(4, 1)).tolist() == [True]
    assert raters(torch.zeros(4, 2)).tolist() == [True, True]


def test_a_word_with_just_the_mean_share_does_not_rate():
    # Shares of four words: 1/2, 1/2, 0, 0 for one visual token, 0, 1/2, 0, 1/2 for the other; means 1/4, 1/2, 0, 1/4.
    low = -torch.inf
    affinity = torch.tensor([[0.0, 0.0, low, low], [low, 0.0, low, 0.0]])
    assert raters(affinity).tolist() == [False, True, False, False]


def test_a_relation_is_the_mean_over_raters():
    rows = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.35, 0.35]])
    affinity = torch.tensor([[5.0, 0.0, 5.0]] * 3)  # the first and the third word rate
    assert relation(SparseVLM(), rows, affinity) == pytest.approx([0.4, 0.3, 0.3])
    assert relation(V2, torch.stack([rows, 3 * rows]), affinity) == pytest.approx([0.8, 0.6, 0.6])  # and over heads


def test_only_raters_are_asked():
    affinity = torch.tensor([[0.0, 5.0]] * 4)
    rows = torch.tensor([[0.9, 0.0, 0.0, 0.1], [0.1, 0.2, 0.4, 0.3]])
    assert select(V2, rows[None], 2, affinity).keep.tolist() == [2, 3]
    assert select(V2, rows[None], 2).keep.tolist() == [0, 2]  # both rate: 1.0, .2, .4, .4, ties to the lower index


def test_v2_divides_by_what_ones_would_score():
    rows, gravity = torch.tensor([[[0.4, 0.3, 0.3]]]), torch.tensor([[4.0, 1.0, 2.0]])
    selection = select(V2, rows, 2, gravity=gravity)  # 0.1, 0.3, 0.15
    assert selection.keep.tolist() == [1, 2]
    assert selection.positions == "original" and selection.assign is None


def test_v2_asks_the_heads_that_look_most_at_the_image():
    rows = torch.tensor([[[0.1, 0.0, 0.0]], [[0.0, 0.3, 0.3]], [[0.9, 0.0, 0.0]]])
    assert select(SparseVLM(version="2.0", heads=1), rows, 1).keep.tolist() == [0]
    assert select(SparseVLM(version="2.0", heads=1), rows[:2], 1).keep.tolist() == [1]
    assert select(V2, rows, 2).keep.tolist() == [0, 1]  # fewer than 14 heads: all


def test_thirty_percent_of_the_dropped_make_one_cluster_for_ten():
    assert (recycled_of(276), clusters_of(276)) == (83, 9)  # 576 - 300
    assert (recycled_of(1), clusters_of(1)) == (1, 1)
    assert (recycled_of(30), clusters_of(30)) == (10, 2)


def test_v15_keeps_the_best_and_appends_the_mean_of_the_best_dropped():
    # Seven tokens, 3 alive: two stay (4 and 1), of the five dropped int(1.5) + 1 = 2 are recycled (0 and 6) as one.
    rows = torch.tensor([[0.5, 0.8, 0.1, 0.2, 0.9, 0.3, 0.4]])
    selection = select(SparseVLM(), rows, 3)
    assert selection.keep[:2].tolist() == [1, 4] and selection.keep[2].item() in (0, 6)
    assert selection.assign.tolist() == [2, 0, -1, -1, 1, -1, 2]
    assert selection.positions is None and SparseVLM.positions == "renumber"
    out = reduce(selection, torch.arange(7.0)[:, None])
    torch.testing.assert_close(out[:, 0], torch.tensor([1.0, 4.0, 3.0]))
    assert reduce_sizes(selection, torch.ones(7)).tolist() == [1, 1, 2]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("r", "c"), [(1, 1), (9, 1), (12, 2), (33, 4)])
def test_clusters_equal_the_literal_ones(seed, r, c):
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(r, 6, generator=generator), torch.rand(r, generator=generator)
    centre, slot = cluster(x, c, noise)
    assert slot[centre].tolist() == list(range(c))
    sums = torch.zeros(c, 6).index_add_(0, slot, x) / (torch.bincount(slot, minlength=c)[:, None] + 1e-6)
    torch.testing.assert_close(sums, torch.tensor(literal(x, c, noise)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 5])
def test_a_token_is_at_no_distance_from_itself_however_long_it_is(seed):
    # One nearest neighbour is the token itself, so densities are equal but for the noise. Rounding of long tokens'
    # distances would outweigh it.
    generator = torch.Generator().manual_seed(seed)
    x, noise = 1000 * torch.randn(9, 65, generator=generator), torch.randperm(9, generator=generator) / 8
    assert cluster(x, 1, noise)[0].tolist() == [noise.argmax()]


def test_where_two_numbers_of_whole_tokens_fit_the_plan_the_authors_stays():
    # Of 330, 300 kept make 302 alive: 30 dropped, 10 of them in 2 clusters. 301 kept do too: 29, 9 of them in 1.
    assert (kept_of(330, 302), clusters_of(30), clusters_of(29)) == (301, 2, 1)
    assert SparseVLM()._kept(view_at_3(SparseVLM(), torch.rand(3, 330), 302)) == 300
    assert SparseVLM(retain=64)._kept(view_at_3(SparseVLM(), torch.rand(3, 330), 302)) == 301


def test_low_precision_tokens_are_clustered_in_float32():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(33, 6, generator=generator).half(), torch.rand(33, generator=generator)
    for mine, wide in zip(cluster(x, 4, noise), cluster(x.float(), 4, noise), strict=True):
        assert torch.equal(mine, wide)


def test_flops_are_those_of_the_distances_of_recycled_tokens():
    # 576 -> 309: 300 stay as they are, and of the 276 dropped 83 are compared in 8 channels. v2.0 compares none.
    site, shape = Site(IN_LLM, 3), shape_of(FULL, llm_layers=32)
    assert SparseVLM().selection_flops(site, 576, 309, 8, shape) == 2 * 83**2 * 8
    assert V2.selection_flops(site, 576, 300, 8, shape) == 0


def test_settings_of_the_authors():
    assert (SparseVLM().version, SparseVLM().retain, SparseVLM().heads) == ("1.5", 192, 14)
    assert (SparseVLM().layers, SparseVLM().depth) == ((2, 6, 15), 32)


@pytest.mark.parametrize("n", [1, 2, 7, 24, 64, 169])
def test_every_count_between_one_cluster_and_all_is_met_exactly(n):
    rows = torch.rand(3, n, generator=torch.Generator().manual_seed(n))
    for keep in {clusters_of(n), (clusters_of(n) + n) // 2, n - 1, n}:
        if keep < clusters_of(n):
            continue
        kept = kept_of(n, keep)
        assert kept + clusters_of(n - kept) == keep
        selection = select(SparseVLM(), rows, keep, hidden=torch.randn(n, 5))
        assert len(set(selection.keep.tolist())) == keep
        assert selection.assign[selection.keep].tolist() == list(range(keep))
    for keep in {0, 1, n // 2, n}:
        assert len(select(V2, rows[None], keep).keep) == keep


def test_the_noise_comes_from_the_seed():
    view = view_of(Site(IN_LLM, 3), torch.zeros(4, 2), 2, shape_of((1, 4), llm_layers=32), seed=5)
    other = view_of(Site(IN_LLM, 3), torch.zeros(4, 2), 2, shape_of((1, 4), llm_layers=32), seed=6)
    assert torch.equal(SparseVLM().noise(view, 4), SparseVLM().noise(view, 4))
    assert not torch.equal(SparseVLM().noise(view, 4), SparseVLM().noise(other, 4))
    assert SparseVLM.stochastic


def test_native_192_goes_from_576_by_309_and_204_to_113():
    plan = SparseVLM().plan(Budget("native", 0), shape_of(FULL, llm_layers=32))
    assert plan.entering == (576,) * 3 + (309,) * 4 + (204,) * 9 + (113,) * 16


@pytest.mark.parametrize(
    ("version", "averages"),
    [("1.5", {192: 206.5, 128: 145.4, 96: 114.1, 64: 82.3}), ("2.0", {192: 206.8, 128: 144.1, 96: 113.9, 64: 81.8})],
)
def test_the_authors_lists_average_what_really_enters(version, averages):
    for retain, average in averages.items():
        pruner = SparseVLM(version=version, retain=retain)
        native = pruner.plan(Budget("native", 0), shape_of(FULL, llm_layers=32))
        assert native.layer_average == pytest.approx(average, abs=0.06)
        asked = plan_of(pruner, 576, round(average))
        assert all(abs(a - b) <= 14 for a, b in zip(asked.entering, native.entering, strict=True))


def test_native_keeps_one_less_than_there_are_where_the_list_asks_for_more():
    plan = build("sparsevlm:v2").plan(Budget("native", 0), shape_of((1, 100), llm_layers=32))
    assert list(plan.keeps.values()) == [99, 98, 97]


@pytest.mark.parametrize(("layers", "sites"), [(32, (3, 7, 16)), (28, (3, 6, 14)), (16, (2, 4, 8)), (6, (1, 2, 3))])
def test_layers_are_mapped_to_the_depth_of_the_model(layers, sites):
    pruner, shape = SparseVLM(), shape_of((2, 2), llm_layers=layers)
    assert tuple(site.layer for site in pruner.sites(shape)) == sites
    rows = [need for need in pruner.needs(shape) if need.kind == "rows"]
    assert [(need.layer, need.at) for need in rows] == [(site - 1, site) for site in sites]


def test_floors_by_hand():
    # v1.5, none kept: 576 -> int(172.8)+1 = 173 -> 18 clusters -> 1 -> 1; 3 x 576 + 4 x 18 + 9 + 16 = 1825 of 32.
    with pytest.raises(BudgetInfeasible) as caught:
        plan_of(SparseVLM(), 576, 57)
    assert caught.value.floor == pytest.approx(1825 / 32)
    assert plan_of(SparseVLM(), 576, 58).entering[3] >= 18
    with pytest.raises(BudgetInfeasible) as caught:
        plan_of(V2, 576, 53)
    assert caught.value.floor == 54  # 3 of 32 layers
    assert plan_of(V2, 576, 54).entering == (576,) * 3 + (0,) * 29


def test_an_interface_budget_is_refused_since_all_tokens_enter_layer_0():
    with pytest.raises(BudgetInfeasible, match="layer_average"):
        SparseVLM().plan(Budget("interface_kept", 100), shape_of(FULL, llm_layers=32))


@pytest.mark.parametrize("layers", [16, 28, 32, 36])
@pytest.mark.parametrize("n", [4, 7, 24, 64, 169, 576, 2880])
@pytest.mark.parametrize("version", ["1.5", "2.0"])
def test_every_budget_above_the_floor_is_met_within_a_token(version, n, layers):
    pruner = SparseVLM(version=version)
    met = 0
    for tokens in sorted({n // 8 + 1, n // 6, n // 4, n // 3, n // 2, (2 * n) // 3, (9 * n) // 10, n - 1} - {0}):
        try:
            plan = plan_of(pruner, n, tokens, layers)
        except BudgetInfeasible as error:
            assert error.floor > tokens
            continue
        met += 1
        assert abs(plan.layer_average - tokens) <= 1 and len(plan.entering) == layers
        alive = n
        for site in sorted(plan.keeps):
            k = plan.keeps[site]
            assert k < alive and plan.entering[site.layer] == k
            assert version == "2.0" or k >= clusters_of(alive)
            alive = k
        assert list(plan.entering) == sorted(plan.entering, reverse=True)
    assert met >= 3 or n < 10


def test_presets_name_the_authors_lists():
    for preset in SparseVLM.presets:
        pruner = build(f"sparsevlm:{preset}")
        assert pruner.retain in LISTS[pruner.version]
    assert build("sparsevlm:v2-64").retain == 64 and build("sparsevlm:v2-64").version == "2.0"


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"version": "1.0"}, "version"),
        ({"retain": 100}, "retain"),
        ({"layers": (2, 6)}, "layers"),
        ({"layers": (2, 6, 31)}, "layers"),
        ({"layers": (6, 2, 15)}, "layers"),
        ({"heads": 0}, "heads"),
    ],
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(PruningError, match=word):
        SparseVLM(**settings)


@pytest.fixture(scope="module")
def family() -> Qwen3VL:
    return Qwen3VL(qwen3_vl(llm_layers=16))


@pytest.mark.parametrize("grids", [((4, 6),), ((3, 4), (6, 6))])
@pytest.mark.parametrize("share", [0.5, 0.25])
@pytest.mark.parametrize("version", ["1.5", "2.0"])
def test_a_model_sees_what_was_planned(family, grids, share, version):
    engine, inputs = Engine(family, SparseVLM(version=version)), family.inputs(processed(grids))
    tokens = round(inputs.shape.n * share)
    plan = engine.plan(Budget("layer_average", tokens), inputs.shape)
    first, again = engine.prefill(inputs, plan), engine.prefill(inputs, plan)
    assert first.realised.entering == plan.entering
    assert abs(plan.layer_average - tokens) <= 1
    assert torch.equal(first.logits, again.logits) and first.realised.kept == again.realised.kept
