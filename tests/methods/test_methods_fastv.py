from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from literal.fastv import kept_positions as literal
from views import shape_of, view_of

from methods.base import IN_LLM, Budget, BudgetInfeasible, MissingSignal, PruningError, Signal, Site
from methods.fastv import FastV

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("fastv_case*.npz"))


def select(pruner: FastV, keep: int, layers: int, *rows: torch.Tensor) -> list[int]:
    """Kept visual indices; rows: the tensors of pruner.needs(), in that order."""
    n = rows[0].shape[-1]
    shape = shape_of((1, n), llm_layers=layers)
    signals = dict(zip(pruner.needs(shape), rows, strict=True))
    return pruner.in_llm(view_of(pruner.site(shape), torch.zeros(n, 3), keep, shape, signals)).keep.tolist()


def test_the_most_attended_tokens_stay_in_their_original_order():
    assert select(FastV(), 2, 32, torch.tensor([0.1, 0.4, 0.2, 0.3])) == [1, 3]


def test_ties_go_to_the_lower_index():
    assert select(FastV(), 2, 32, torch.tensor([0.1, 0.3, 0.3, 0.3])) == [1, 2]


def test_query_all_ranks_by_attention_received_from_visual_and_text_rows():
    # Columns receive: visual rows 1.0 + .5, .5, 0; text rows .2+.1, .2+.3, .6+.6 -> 1.8, 1.0, 1.2.
    visual = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0, 0]])
    text = torch.tensor([[0.2, 0.2, 0.6], [0.1, 0.3, 0.6]])
    assert select(FastV(query="all"), 2, 32, visual, text) == [0, 2]
    assert select(FastV(), 2, 32, text[-1]) == [1, 2]  # the last row alone keeps others


@pytest.mark.parametrize(("k", "layers", "layer"), [(2, 32, 2), (3, 32, 3), (2, 16, 1), (3, 24, 2), (2, 40, 2)])
def test_layer_is_mapped_to_the_depth_of_the_model(k, layers, layer):
    pruner, shape = FastV(k=k), shape_of((2, 2), llm_layers=layers)
    assert pruner.site(shape) == Site(IN_LLM, layer)
    assert pruner.needs(shape) == (Signal("rows", tower="llm", layer=layer - 1, queries="last"),)


@pytest.mark.parametrize(
    ("average", "k", "kept"), [(192, 2, 166), (128, 2, 98), (64, 2, 30), (192, 3, 152), (128, 3, 82), (64, 3, 11)]
)
def test_kept_counts_that_meet_a_layer_average_of_576_tokens_over_32_layers(average, k, kept):
    plan = FastV(k=k).plan(Budget("layer_average", average), shape_of((24, 24), llm_layers=32))
    assert plan.keeps == {Site(IN_LLM, k): kept}
    assert plan.entering == (576,) * k + (kept,) * (32 - k)
    assert abs(plan.layer_average - average) < 1


def test_a_budget_below_k_of_l_names_the_floor():
    with pytest.raises(BudgetInfeasible, match="36") as caught:
        FastV().plan(Budget("layer_average", 35), shape_of((24, 24), llm_layers=32))
    assert caught.value.floor == 36  # 2 of 32 layers see 576
    assert FastV().plan(Budget("layer_average", 36), shape_of((24, 24), llm_layers=32)).keeps == {Site(IN_LLM, 2): 0}


def test_an_interface_budget_is_refused_since_all_tokens_enter_layer_0():
    with pytest.raises(BudgetInfeasible, match="layer_average"):
        FastV().plan(Budget("interface_kept", 100), shape_of((24, 24), llm_layers=32))


def test_native_half_of_25_is_12():
    plan = FastV().plan(Budget("native", 0), shape_of((5, 5), llm_layers=32))
    assert plan.keeps == {Site(IN_LLM, 2): 12} and plan.entering == (25, 25) + (12,) * 30


def test_a_missing_signal_is_named():
    shape = shape_of((1, 4), llm_layers=32)
    with pytest.raises(MissingSignal, match="rows"):
        FastV().in_llm(view_of(Site(IN_LLM, 2), torch.zeros(4, 2), 2, shape))


@pytest.mark.parametrize("settings", [{"k": 0}, {"k": 32}, {"r": 1.5}, {"query": "first"}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(PruningError, match=next(iter(settings))):
        FastV(**settings)


@pytest.mark.parametrize(("n", "r"), [(9, 0.5), (30, 0.75), (64, 0.1)])
def test_selection_equals_the_literal_prefill_step(n, r):
    generator = torch.Generator().manual_seed(n)
    start, after, heads = 3, 5, 4
    length = start + n + after
    logits = torch.randn(heads, length, length, generator=generator)
    probabilities = logits.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(dim=-1)
    keep = round(n * (1 - r))
    mine = select(FastV(r=r), keep, 32, probabilities.mean(dim=0)[-1, start : start + n])
    expected = [i - start for i in literal(probabilities, r, start, n) if start <= i < start + n]
    assert mine == expected


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kept_tokens_equal_the_authors(path):
    golden = np.load(path)
    layers, start, n = 6, int(golden["image_start"]), int(golden["image_length"])
    pruner = FastV(k=int(golden["fastv_k"]), depth=layers, r=float(golden["fastv_r"]))
    plan = pruner.plan(Budget("native", 0), shape_of((1, n), llm_layers=layers))
    ((site, keep),) = plan.keeps.items()
    assert site.layer == golden["fastv_k"]
    mine = [start + i for i in select(pruner, keep, layers, torch.from_numpy(golden["score_image"]))]
    theirs = [i for i in golden["keep_index"].tolist() if start <= i < start + n]
    assert mine == theirs
    text = len(golden["inputs_embeds"][0]) - n
    assert [count + text for count in plan.entering] == golden["kv_len_per_layer_after_prefill"].tolist()


def test_every_golden_file_is_there():
    assert len(GOLDEN) >= 5


@pytest.mark.parametrize(("n", "kept"), [(5, 4), (6, 4), (10, 8)])  # three quarters: 3.75, 4.5, 7.5
def test_native_count_is_rounded_half_to_even(n, kept):
    plan = FastV(r=0.25).plan(Budget("native", 0), shape_of((1, n), llm_layers=32))
    assert plan.keeps == {Site(IN_LLM, 2): kept}
