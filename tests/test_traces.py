"""Reading traces: by hand on a few events, then one that torch's profiler wrote here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness.measure.clock import PerfCounterBackend, StageClock
from harness.measure.profile import CYCLES, TIMED, TRACED, profile_arms
from harness.measure.traces import Event, StageTime, read_events, stage_tables, top_operators

HOST = (1, 1)


def ranged(name: str, start: float, duration: float, category: str = "user_annotation") -> Event:
    return Event(name, category, HOST, start, duration)


def operator(name: str, start: float, duration: float, category: str = "cpu_op") -> Event:
    return Event(name, category, HOST, start, duration)


ONE = [
    ranged("prefill", 0, 10_000),
    ranged("vit", 0, 6_000),
    operator("linear", 100, 2_000),
    operator("addmm", 200, 1_500),
    ranged("select", 3_000, 1_000),
    operator("topk", 3_100, 500),
    ranged("llm", 6_000, 3_000),
    operator("linear", 6_100, 2_000),
    operator("linear", 20_000, 99_000),  # after the prefill: not ours
]


def table(events: list[Event], measured_ms: dict[str, list[float]], **options) -> dict[str, StageTime]:
    """The rows of one arm by their stages."""
    return {row.stage: row for row in stage_tables({"one": events}, {"one": measured_ms}, **options)["one"]}


def test_a_stage_has_its_own_time_and_an_inner_one_takes_its_share():
    rows = table(ONE, {"vit": [4.0, 5.0, 99.0], "llm": [3.0], "total": [10.0]})
    assert {stage: row.traced_ms for stage, row in rows.items()} == {
        "vit": 5, "projector": 0, "select": 1, "llm": 3, "residual": 1, "total": 10,
    }  # fmt: skip
    assert (rows["vit"].measured_ms, rows["select"].measured_ms, rows["residual"].measured_ms) == (5, 0, 2)


def test_the_profilers_own_time_is_taken_off_by_events_at_a_cost_that_the_other_stages_tell():
    """The LLM takes 2 ms without the profiler and 3 with it, over 2 recorded events: .5 ms an event."""
    rows = table(ONE, {"llm": [2.0], "total": [9.0]})
    assert rows["vit"].ms == pytest.approx(5 - 3 * 0.5)
    assert rows["select"].ms == pytest.approx(1 - 2 * 0.5)
    assert rows["total"].ms == pytest.approx(10 - 7 * 0.5)
    assert rows["residual"].ms == 1
    assert rows["llm"].ms == 3, "no other stage tells what an event costs, and its own clock must not"


def test_a_stages_own_clock_does_not_correct_it():
    """Else a trace would agree with whatever was measured."""
    fair, wrong = ({"vit": [4.0], "llm": [2.5], "select": [one], "total": [9.0]} for one in (0.5, 0.1))
    assert table(ONE, fair)["select"].ms == table(ONE, wrong)["select"].ms
    assert table(ONE, fair)["vit"].ms != table(ONE, wrong)["vit"].ms


def test_the_other_arm_tells_what_an_event_costs_too():
    arms, measured = {"base": ONE, "pruned": ONE}, {"base": {"llm": [2.0], "total": [9.0]}, "pruned": {"total": [9.0]}}
    pruned = {row.stage: row.ms for row in stage_tables(arms, measured)["pruned"]}
    assert pruned["llm"] == pytest.approx(3 - 2 * 0.5)


def test_stages_that_are_dense_with_events_tell_more_than_long_ones():
    """A drift of 1 ms in 5 ms of few events must not be taken for the profiler's."""
    drifted = {"vit": [4.0], "llm": [2.9], "total": [9.0]}  # the LLM: .05 ms an event; the ViT: .33
    cost = (1 - table(ONE, drifted)["select"].ms) / 2
    assert cost == pytest.approx((3 / 4 * 1 / 4 + 2 / 2.9 * 0.1 / 2.9) / ((3 / 4) ** 2 + (2 / 2.9) ** 2))


def test_repetitions_are_told_by_their_median():
    twice = [*ONE, *(Event(e.name, e.category, HOST, e.start_us + 200_000, e.duration_us * 3) for e in ONE[:1])]
    rows = table(twice, {"total": [50.0]})
    assert (rows["total"].traced_ms, rows["vit"].traced_ms) == (20, 2.5)
    assert top_operators(twice, 1)[0].calls == 0.5
    quickest = table(twice, {"total": [50.0, 9.0]}, middle=min)
    assert (quickest["total"].traced_ms, quickest["total"].measured_ms) == (10, 9)


def test_operators_are_named_with_their_own_time_and_the_stage_they_ran_in():
    top = top_operators(ONE, 9)
    assert [(row.stage, row.name, row.calls, row.ms) for row in top] == [
        ("llm", "linear", 1, 2.0), ("vit", "addmm", 1, 1.5), ("vit", "linear", 1, 0.5), ("select", "topk", 1, 0.5),
    ]  # fmt: skip
    assert sum(row.share for row in top) == pytest.approx(1)
    assert len(top_operators(ONE, 2)) == 2


def test_on_an_accelerator_the_devices_ranges_and_kernels_count():
    stream = (0, 7)
    device = [
        Event("prefill", "gpu_user_annotation", stream, 500, 4_000),
        Event("vit", "gpu_user_annotation", stream, 500, 1_000),
        Event("gemm", "kernel", stream, 600, 700),
    ]
    rows = table([*ONE, *device], {"vit": [0.9], "llm": [0.1], "total": [3.9]})
    assert (rows["total"].traced_ms, rows["vit"].ms) == (4, 1)  # the profiler's time is the host's
    assert [row.name for row in top_operators([*ONE, *device], 5)] == ["gemm"]


def test_a_trace_of_something_else_is_refused():
    with pytest.raises(ValueError, match="no prefill"):
        table([operator("linear", 0, 1)], {"total": [1.0]})


def test_both_arms_are_traced_with_their_ranges(tmp_path: Path):
    weights = torch.randn(64, 64)

    def run(clock: StageClock) -> None:
        with clock.stage("vit"):
            weights @ weights
        with clock.stage("llm_prefill"):
            weights @ weights
            weights @ weights

    profile_arms({"base": run, "pruned": run}, tmp_path, StageClock(PerfCounterBackend()), {"title": "t"})
    document = json.loads((tmp_path / "profile.json").read_text())
    assert document["title"] == "t" and set(document["measured_ms"]["base"]) == {"vit", "llm", "total"}
    for arm in ("base", "pruned"):
        assert len(document["traces"][arm]) == CYCLES and len(document["measured_ms"][arm]["llm"]) == CYCLES * TIMED
        events = [event for name in document["traces"][arm] for event in read_events(tmp_path / arm / name)]
        prefills = [e for e in events if e.name == "prefill" and e.category == "user_annotation"]
        assert len(prefills) == CYCLES * TRACED
        products = [row for row in top_operators(events, 99) if row.name == "aten::mm"]
        assert {row.stage: row.calls for row in products} == {"vit": 1, "llm": 2}
