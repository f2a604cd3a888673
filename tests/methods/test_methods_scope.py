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
from methods.ops import cosines_flops
from methods.scope import FEATURES, Scope, covering

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("scope_*.npz"))


def literal(features: torch.Tensor, saliency: torch.Tensor, k: int, combine: str) -> list[int]:
    """The steps as described, every gain anew."""
    unit = features.float() / features.float().norm(dim=1, keepdim=True)
    likeness, chosen = unit @ unit.T, []
    best = torch.zeros(len(unit))
    for _ in range(k):
        gain = (likeness - best[:, None]).clamp(min=0).sum(dim=0)
        score = gain * saliency if combine == "multiply" else gain + saliency
        score[chosen] = -torch.inf
        chosen.append(int(score.argmax()))
        best = torch.maximum(best, likeness[chosen[-1]])
    return chosen


def test_the_token_that_covers_most_goes_first_and_what_it_covers_counts_no_more():
    # 0, 1, 2 point the same way, 3 and 4 another: the first of three covers 3, then the first of two covers 2; then
    # nothing is left to gain and the lowest index goes.
    features = torch.eye(2)[[0, 0, 0, 1, 1]]
    assert covering(features, torch.ones(5), 4).tolist() == [0, 3, 1, 2]


def test_attention_multiplies_or_is_added():
    features = torch.eye(2)[[0, 0, 0, 1, 1]]
    attention = torch.tensor([1.0, 1, 1, 1, 2])
    assert covering(features, attention, 2).tolist() == [4, 0]  # 3 x 1 against 2 x 2
    assert covering(features, attention, 2, "add").tolist() == [0, 4]  # 3 + 1 and 2 + 2 tie; then 0 + 1 against 2 + 2


def test_negative_cosines_do_not_count():
    features = torch.tensor([[1.0, 0], [-1, 0], [-1, 0.1]])
    # 1 is 1 to itself and almost 1 to 2; 0 covers itself alone, and its opposites take nothing from its gain.
    assert covering(features, torch.tensor([1.9, 1, 0.1]), 1).tolist() == [1]
    assert covering(features, torch.tensor([2.1, 1, 0.1]), 1).tolist() == [0]


@pytest.mark.parametrize("combine", ["multiply", "add"])
@pytest.mark.parametrize(("n", "k"), [(5, 5), (40, 17), (129, 64)])
def test_shrinking_gains_choose_what_gains_made_anew_choose(n, k, combine):
    generator = torch.Generator().manual_seed(n)
    features, attention = torch.randn(n, 8, generator=generator), torch.rand(n, generator=generator)
    assert covering(features, attention, k, combine).tolist() == literal(features, attention, k, combine)


def test_a_zero_vector_does_no_harm_and_every_budget_is_met():
    features = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    features[3] = 0
    for k in range(13):
        assert len(set(covering(features, torch.ones(12), k).tolist())) == k


RECEIVED = Signal("rows", "vit", 7, "received")


def select(tokens, attention, k, *grids, **settings):
    signals = {RECEIVED: attention[:, None].expand(-1, 4)}
    return Scope(**settings).at_interface(view_of(Site(INTERFACE), tokens, k, shape_of(*grids), signals)).keep.tolist()


def test_each_image_is_pruned_alone_and_in_raster_order():
    generator = torch.Generator().manual_seed(3)
    tokens, attention = torch.randn(40, 8, generator=generator), torch.rand(40, generator=generator)
    attention[:24] *= 100
    kept = select(tokens, attention, 20, (4, 6), (4, 4))
    first, second = select(tokens[:24], attention[:24], 12, (4, 6)), select(tokens[24:], attention[24:], 8, (4, 4))
    assert kept == first + [24 + token for token in second] == sorted(kept)


def test_without_alpha_attention_does_not_matter():
    generator = torch.Generator().manual_seed(3)
    tokens, attention = torch.randn(24, 8, generator=generator), torch.rand(24, generator=generator)
    assert select(tokens, attention, 9, (4, 6), alpha=0.0) == select(tokens, torch.ones(24), 9, (4, 6))
    assert select(tokens, attention, 9, (4, 6)) != select(tokens, torch.ones(24), 9, (4, 6))


def test_a_vit_with_cls_is_asked_for_its_row_and_added_attention_for_all_heads():
    clip = Shape(((24, 24),), 23, 32, unit_patches=1, vit_cls=True)
    assert Scope().needs(clip) == (Signal("rows", "vit", 22, "cls"), FEATURES)
    assert Scope(combine="add").needs(clip)[0] == Signal("rows", "vit", 22, "cls", per_head=True)
    assert Scope().needs(shape_of((4, 6))) == (RECEIVED,)


def test_native_counts_floors_and_settings():
    assert Scope().plan(Budget("native", 0), shape_of((24, 24), (4, 4))).keeps == {Site(INTERFACE): 80}
    with pytest.raises(BudgetInfeasible):
        Scope().plan(Budget("layer_average", 0), shape_of((4, 4)))
    for settings in ({"alpha": -1.0}, {"tokens": 0}):
        with pytest.raises(PruningError, match=next(iter(settings))):
            Scope(**settings)


@pytest.mark.parametrize("percent", [50, 33, 22, 11])
@pytest.mark.parametrize("combine", ["multiply", "add"])
def test_a_model_runs_what_was_planned(percent, combine):
    family, pruner = Qwen3VL(qwen3_vl()), Scope(combine=combine)
    engine, inputs = Engine(family, pruner), family.inputs(processed(((6, 6), (3, 4))))
    k = round(inputs.shape.n * percent / 100)
    realised = engine.prefill(inputs, engine.plan(Budget("layer_average", k), inputs.shape)).realised
    assert realised.entering == (k,) * 6
    assert pruner.selection_flops(Site(INTERFACE), 48, k, 32, inputs.shape) == cosines_flops(36, 32) + cosines_flops(
        12, 32
    )


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_order_of_choice_equals_the_authors(path):
    with np.load(path) as golden:
        combine = "add" if golden["combine_add"] else "multiply"
        weights = torch.from_numpy(golden["saliency_head_sum"]).float() ** float(golden["alpha"])
        for tile, weight, order in zip(golden["features"], weights, golden["selection_order"], strict=True):
            assert covering(torch.from_numpy(tile), weight, len(order), combine).tolist() == order.tolist()
