"""Gold tests of LLaVA-NeXT: tiles, padding and newlines, against the native model with masked keys."""

from dataclasses import replace

import gold
import pytest
import torch
from gold import FACE, Gold, cases
from gold_cases import ClsTowerCases
from tiny import Scripted

import harness.models.interface as interface_module
from harness.models.families.llava_next import LlavaNext
from harness.models.families.tiles import TiledState
from harness.models.vision_state import VisionState
from harness.validate.tiny import llava_next, llava_next_processed
from methods import build
from methods.base import VISUAL, Budget, Selection, Signal

WIDE, TALL, SQUARE = ((6, 12),), ((12, 6),), ((12, 12),)  # sizes in patches; none is padded
PADDED = {"flat": ((4, 12),), "narrow": ((12, 3),), "square in two tiles": ((9, 9),), "lean": ((12, 11),)}
TWO = ((4, 12), (12, 6))  # the first is padded
CASES = cases(36)  # of the base image
TILED = cases(78)  # of a grid of 6 x 12 patches and a newline a row


def vit_keys(family, inputs, gone):
    """CLS is always there; padding until something is cut. Tiles are one batch."""
    shape, geometry = inputs.shape, inputs.geometry
    starts = torch.tensor(shape.images).cumsum(0) - torch.tensor(shape.images)
    dead = torch.full((sum(patches for _, patches, _ in shape.tiles),), bool(gone.any()))
    dead[geometry["patch"]] = gone[starts[geometry["image"]] + geometry["unit"]]
    return torch.nn.functional.pad(dead.view(len(shape.tiles), -1), (1, 0))


def newlines(inputs):
    blank = torch.zeros(inputs.shape.n, dtype=torch.bool)
    starts = torch.tensor(inputs.shape.images).cumsum(0) - torch.tensor(inputs.shape.images)
    image, unit = inputs.geometry["blank"].T
    blank[starts[image] + unit] = True
    return blank


NEXT = Gold(LlavaNext, llava_next, llava_next_processed, vit_keys, newlines)


class TestLlavaNext(ClsTowerCases):
    """The grid of tiles is pruned, in `several` one whose last row of tiles is padded."""

    gold, one, several, twice, cases, pruned = NEXT, WIDE, TWO, (WIDE, TWO), TILED, 1


@pytest.fixture(scope="module")
def model():
    return llava_next(torch.float64)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("sizes", [WIDE, TALL, SQUARE, WIDE + TALL])
def test_keeping_everything_is_the_native_model_bit_for_bit(sizes, attention):
    assert gold.native_error(NEXT, sizes, attention) == 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("sizes", [*PADDED.values(), TWO], ids=[*PADDED, "two"])
def test_padded_tiles_that_keep_everything_are_the_native_model_bit_for_bit(sizes, attention):
    assert gold.native_error(NEXT, sizes, attention) == 0


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pruned_base_image_equals_the_native_model_with_masked_keys(model, case):
    assert gold.gold_error(NEXT, model, WIDE, case) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_with_padded_tiles_and_two_pictures(model, case):
    assert gold.gold_error(NEXT, model, TWO, case, image=1) < 1e-9
    assert gold.gold_error(NEXT, model, TWO, case, image=2) < 1e-9


# Newlines: visual tokens that are no ViT tokens


def test_a_newline_is_a_row_at_the_interface_with_its_embedding_and_zeros_in_signals(model):
    rows, keys = Signal("rows", "vit", 7, "cls"), Signal("keys", "vit", 7)
    seen = {}

    def look(view):
        seen.update(hidden=view.hidden, kind=view.kind, unit=view.unit, rows=view.signal(rows), keys=view.signal(keys))
        return Selection(torch.arange(view.n))

    pruner = Scripted({FACE: look}, signals=(rows, keys))
    engine = NEXT.engine(model, pruner)
    inputs = engine.family.inputs(NEXT.batch(model, WIDE))
    engine.prefill(inputs, pruner.whole_plan())
    blank = newlines(inputs)
    assert inputs.shape.grids == ((6, 6), (6, 13)) and inputs.shape.in_vit.grids == ((6, 6), (6, 12))
    assert torch.nonzero(blank).flatten().tolist() == [36 + 13 * row + 12 for row in range(6)]
    assert (seen["hidden"][blank] == model.model.image_newline).all() and set(seen["kind"].tolist()) == {VISUAL}
    assert seen["unit"].tolist() == [*range(36), *range(78)]
    assert seen["rows"][blank].abs().max() == 0 and seen["rows"][~blank].min() > 0
    assert seen["keys"][blank].abs().max() == 0 and seen["keys"].shape == (114, 1, 2, 16)


@pytest.mark.parametrize(("tokens", "left"), [(111, 3), (108, 0), (50, 0)])
def test_in_front_of_the_interface_newlines_take_what_the_budget_leaves(model, tokens, left):
    """108 patches and 6 newlines: the first newlines stay, and the budget is met to the token."""
    inputs = LlavaNext(model).inputs(NEXT.batch(model, WIDE))
    for name in ("vprune", "quietprune:init"):
        engine = NEXT.engine(model, build(name))
        plan = engine.plan(Budget("layer_average", tokens), inputs.shape)
        realised = engine.prefill(inputs, plan).realised
        assert realised.entering == (tokens,) * 6 and realised.merged_units == tokens - left


def test_tiles_are_segments_and_an_images_aggregate_stands_in_its_first(model):
    engine = NEXT.engine(model, build("quietprune:init"))
    inputs = engine.family.inputs(NEXT.batch(model, TWO))
    plan = engine.plan(Budget("layer_average", 60), inputs.shape)
    realised = engine.prefill(inputs, plan).realised
    assert realised.vit_tokens[0] == (38,) * 6 and len(realised.vit_tokens[-1]) == 6  # CLS and [Q-CLS] in each tile
    assert sum(realised.vit_tokens[-1]) == 60 + 2 * 6 and realised.entering == (60,) * 6


# Mutations


def test_mutation_slots_in_tile_order(model, monkeypatch):
    original = LlavaNext.project

    def broken(self, state):
        features = original(self, state)
        order = features.slots.source.clamp_min(0).argsort()
        return replace(features, tokens=features.tokens[order])

    monkeypatch.setattr(LlavaNext, "project", broken)
    assert gold.gold_error(NEXT, model, WIDE, TILED["llm"], image=1) > 0.1


def test_mutation_padding_left_out(model, monkeypatch):
    original = LlavaNext.embed

    def broken(self, inputs, keep):
        state = original(self, inputs, keep).in_order()
        fronts, units, aggregates = state.split(state.hidden)
        bare = replace(state, segments=tuple(replace(segment, padding=0) for segment in state.segments))
        return replace(bare, hidden=bare.join([front[:1] for front in fronts], units, aggregates))

    monkeypatch.setattr(LlavaNext, "embed", broken)
    assert gold.gold_error(NEXT, model, TWO, CASES["interface"], image=1) > 0.1


def test_mutation_padding_that_outlives_a_cut(model, monkeypatch):
    monkeypatch.setattr(VisionState, "_without_padding", lambda self, fronts: fronts)
    original = VisionState.select

    def broken(self, selection, kept):
        state = original(self, selection, kept)
        pads = [replace(s, padding=old.padding) for s, old in zip(state.segments, self.segments, strict=True)]
        return replace(state, segments=tuple(pads))

    monkeypatch.setattr(VisionState, "select", broken)
    assert gold.gold_error(NEXT, model, TWO, CASES["vit"], image=1) > 0.1


@pytest.mark.parametrize("case", ["vit", "interface"])
def test_mutation_padded_tiles_left_in_the_order_of_the_tower(model, monkeypatch, case):
    monkeypatch.setattr(TiledState, "in_order", lambda self: replace(self, back=self.back[:0]))
    assert gold.gold_error(NEXT, model, TWO, CASES[case], image=1) > 0.1


def test_mutation_positions_of_another_tile_size(model, monkeypatch):
    original = LlavaNext._positions
    monkeypatch.setattr(LlavaNext, "_positions", lambda self, grids: original(self, grids).flip(0))
    assert gold.gold_error(NEXT, model, WIDE, TILED["pixels"], image=1) > 0.1


def test_mutation_newlines_outlive_a_cut_in_the_vit(model, monkeypatch):
    monkeypatch.setattr(interface_module, "with_room", lambda visual, tokens, from_vit: visual)
    assert gold.gold_error(NEXT, model, WIDE, TILED["vit"], image=1) > 0.1


def test_mutation_patches_cut_across_tiles(model, monkeypatch):
    original = VisionState.tile.fget
    monkeypatch.setattr(VisionState, "tile", property(lambda self: original(self).flip(0)))
    assert gold.gold_error(NEXT, model, WIDE, TILED["vit"], image=1) > 0.1
