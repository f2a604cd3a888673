"""A tower with a CLS token from end to end: a Qwen3-VL of units of one patch, a made-up CLS before each image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from cls_tower import TWO, batch, family_with_cls
from tiny import Scripted, in_llm

from harness.flops.prefill import dims_of, planned_realised
from harness.models.attention import Capture
from harness.models.engine import Engine
from harness.models.signals import vit_signal
from harness.models.vision_state import Segment, VisionState
from methods.base import IN_VIT, INTERFACE, PREFIX, VISUAL, Budget, Plan, Selection, Signal, Site

FACE, CUT = Site(INTERFACE), Site(IN_VIT, 3, "attention")
ROWS = Signal("rows", "vit", 6, "cls")


@pytest.fixture(scope="module")
def family():
    return family_with_cls()


@dataclass(frozen=True)
class ShowsCls(Scripted):
    cls_row: ClassVar[bool] = True


def run(family, pruner, plan=None, grids=TWO):
    engine = Engine(family, pruner)
    inputs = family.inputs(batch(grids))
    return engine.prefill(inputs, plan or pruner.whole_plan(), logits_to_keep=0), inputs


def test_without_a_wish_no_view_shows_cls_and_no_token_comes_of_it(family):
    seen = []

    def look(view):
        seen.append((view.n, set(view.kind.tolist())))
        return Selection(torch.arange(view.n))

    out, _ = run(family, Scripted({CUT: look, FACE: look, in_llm(1): look}))
    assert seen == [(12, {VISUAL})] * 3
    assert out.realised.vit_tokens == ((7, 7),) * 8 and out.realised.entering == (12,) * 6
    kept_all, _ = run(family, None, Plan({}))
    assert torch.equal(out.logits, kept_all.logits)


def test_cls_attends_and_is_attended(family):
    seen = {}

    def look(view):
        seen["rows"] = view.signal(ROWS)
        return Selection(torch.arange(view.n))

    run(family, Scripted({FACE: look}, signals=(ROWS,)))
    assert seen["rows"].shape == (12, 1)
    first, second = seen["rows"].split(6)
    assert 0.2 < first.sum() < 1 and 0.2 < second.sum() < 1  # the rest went to CLS itself


def test_at_the_interface_cls_is_the_first_row_of_its_image_and_can_become_a_token(family):
    seen = {}
    keys = Signal("keys", "vit", 6)

    def keep(view):
        seen.update(kind=view.kind.tolist(), unit=view.unit.tolist(), rows=view.signal(ROWS), keys=view.signal(keys))
        seen["hidden"] = view.hidden
        return Selection(torch.tensor([0, 2, 7, 8, 9]))

    pruner = ShowsCls({FACE: keep}, signals=(ROWS, keys))
    plan = Plan({FACE: 5}, (5,) * 6)
    out, inputs = run(family, pruner, plan)
    assert seen["kind"] == [PREFIX, *[VISUAL] * 6] * 2
    assert seen["unit"] == [-1, *range(6)] * 2
    assert seen["rows"].shape == (14, 1) and seen["rows"][[0, 7]].abs().max() == 0 and seen["rows"][1:7].min() > 0
    assert seen["keys"].shape == (14, 1, 2, 16) and seen["keys"][[0, 7]].abs().max() == 0
    assert out.realised.entering == (5,) * 6 and out.realised.merged_units == 14
    assert int(out.realised.kept["interface"], 16) == 0b11_000010  # units 1 of the first, 0 and 1 of the second
    dims = replace(dims_of(family.model.config), vit_prefix_tokens=1)
    told = planned_realised(dims, inputs.shape, plan, inputs.text, pruner)
    assert told == replace(out.realised, kept={})
    state = family.embed(inputs, None)
    for number in range(8):
        state = family.run_mlp(number, family.run_attention(number, state))
    with torch.no_grad():
        projected = family.visual.merger(state.hidden)  # CLS included, image after image
    torch.testing.assert_close(seen["hidden"], projected)


def test_a_decision_to_do_nothing_leaves_cls_behind(family):
    out, inputs = run(family, ShowsCls({FACE: lambda view: None}))
    kept_all, _ = run(family, None, Plan({}))
    assert torch.equal(out.logits, kept_all.logits)
    everything = Engine(family, ShowsCls({FACE: None})).plan(Budget("layer_average", 12), inputs.shape)
    assert everything.keeps == {}


# The state alone, with learned positions


def cls_state():
    """Two tiles of 3 and 2 units of 2 patches, a CLS each, the second with an extra token; no rotary tables."""
    segments = (Segment(0, 3, False, prefix=1), Segment(1, 2, False, prefix=1))
    hidden = torch.arange(13.0)[:, None].expand(13, 4).clone()
    unit, image = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0, 0, 0, 1, 1])
    return VisionState(hidden, None, None, segments, unit, image, torch.ones(5), patches=2)


def test_a_prefix_token_survives_every_selection_and_is_no_row():
    state = cls_state()
    assert state.lengths == (7, 6)
    assert state.rows()[0][:, :, 0].tolist() == [[1, 2], [3, 4], [5, 6], [9, 10], [11, 12]]
    smaller = state.select(Selection(torch.tensor([1, 4])), [1, 1])
    assert smaller.hidden[:, 0].tolist() == [0, 3, 4, 7, 8, 11, 12] and smaller.cos is None
    grown = smaller.with_extra([torch.full((1, 4), -1.0), torch.full((1, 4), -2.0)])
    assert grown.hidden[:, 0].tolist() == [-1, 0, 3, 4, -2, 7, 8, 11, 12]
    assert [segment.front for segment in grown.segments] == [2, 3]
    assert [rows[:, 0].tolist() for rows in grown.split(grown.hidden)[0]] == [[-1, 0], [-2, 7, 8]]


def test_the_bias_of_prefix_and_extra_tokens_is_zero():
    state = replace(cls_state(), size=torch.tensor([1.0, 2, 3, 4, 5]))
    first, second = (bias.exp().round().int().tolist() for bias in state.key_bias())
    assert first == [1, 1, 1, 2, 2, 3, 3] and second == [1, 1, 4, 4, 5, 5]


def captures_of(state, batched):
    generator = torch.Generator().manual_seed(0)
    singles = [Capture(*(torch.randn(1, 2, t, 4, generator=generator) for _ in "qk"), 0.5) for t in state.lengths]
    if not batched:
        return singles, singles
    widest = max(state.lengths)
    padded = [
        torch.cat(
            [torch.nn.functional.pad(getattr(one, name), (0, 0, 0, widest - one.key.shape[2])) for one in singles]
        )
        for name in ("query", "key")
    ]
    return singles, [Capture(*padded, 0.5)]


@pytest.mark.parametrize("batched", [False, True])
def test_cls_rows_and_keys_leave_the_prefix_out(batched):
    state = cls_state()
    singles, captures = captures_of(state, batched)
    cls = vit_signal(Signal("rows", "vit", 0, "cls"), state, captures)
    by_head = vit_signal(Signal("rows", "vit", 0, "cls", per_head=True), state, captures)
    assert cls.shape == (5, 2) and by_head.shape == (2, 5, 2)
    rows = [
        (one.query[0, :, at] * one.key[0].transpose(0, 1) * 0.5).sum(-1).softmax(0)
        for one, at in zip(singles, (0, 1), strict=True)
    ]
    expected = torch.cat([rows[0].mean(1)[1:], rows[1].mean(1)[2:]]).view(5, 2)
    torch.testing.assert_close(cls, expected)
    torch.testing.assert_close(by_head.mean(0), cls)
    keys = vit_signal(Signal("keys", "vit", 0), state, captures)
    own = torch.cat([singles[0].key[0, :, 1:], singles[1].key[0, :, 2:]], 1).transpose(0, 1)
    assert torch.equal(keys, own.reshape(5, 2, 2, 4))
