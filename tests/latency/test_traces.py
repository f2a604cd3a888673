"""Reading traces: by hand on a few events, then one that torch's profiler wrote here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness.latency.clock import PerfCounterBackend, StageClock
from harness.latency.profiler import CYCLES, TIMED, TRACED, profile_arms
from harness.latency.traces import Event, StageTime, read_events, stage_tables, top_operators

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


def table(events: list[Event], measured_ms: dict[str, list[float]]) -> dict[str, StageTime]:
    """The rows of one arm by their stages."""
    return {row.stage: row for row in stage_tables({"one": events}, {"one": measured_ms})["one"]}


def test_a_stage_has_its_own_time_and_an_inner_one_takes_its_share():
    rows = table(ONE, {"vit": [4.0, 5.0, 99.0], "llm": [3.0], "total": [10.0]})
    assert {stage: row.traced_ms for stage, row in rows.items()} == {
        "vit": 5, "projector": 0, "select": 1, "llm": 3, "residual": 1, "total": 10,
    }  # fmt: skip
    assert (rows["vit"].measured_ms, rows["select"].measured_ms, rows["residual"].measured_ms) == (5, 0, 2)


def test_the_profilers_own_time_is_taken_off_by_events_at_a_cost_that_other_stages_of_the_tower_tell():
    """The base's LLM takes 2 ms without the profiler and 3 with it, over 2 recorded events: .5 ms an event."""
    measured = {"base": {"llm": [2.0], "total": [9.0]}, "pruned": {"llm": [2.8], "total": [9.0]}}
    rows = {row.stage: row for row in stage_tables({"base": ONE, "pruned": ONE}, measured)["pruned"]}
    assert rows["llm"].ms == pytest.approx(3 - 2 * 0.5)
    assert rows["vit"].ms == 5, "no clock of the vision tower tells what an event costs there"
    assert rows["residual"].ms == 1


@pytest.mark.parametrize(("outer", "shares"), [("vit", (0.5, 0.5)), ("llm", (0.0, 1.0)), (None, (0.0, 1.0))])
def test_a_selection_pays_for_its_events_where_it_stands(outer: str | None, shares: tuple[float, float]):
    """An event costs .4 ms in the ViT and .1 ms in the LLM; a selection inside the ViT is half-way between."""
    events = [
        ranged("prefill", 0, 20_000), ranged("vit", 0, 5_000), ranged("llm", 5_000, 5_000),
        *([ranged(outer, 10_000, 5_000)] if outer else []),
        ranged("select", 11_000, 3_000), operator("topk", 11_100, 500),
    ]  # fmt: skip
    extra = {"vit": 5 if outer != "vit" else 7, "llm": 5 if outer != "llm" else 7}
    cost = {"vit": 0.4 * (1 + (outer == "vit")), "llm": 0.1 * (1 + (outer == "llm"))}
    rows = table(events, {stage: [extra[stage] - cost[stage]] for stage in extra} | {"total": [20.0]})
    assert rows["select"].traced_ms - rows["select"].ms == pytest.approx(2 * (0.4 * shares[0] + 0.1 * shares[1]))


@pytest.mark.parametrize(
    ("stage", "follows"), [("vit", {"vit": False, "select": True}), ("select", {"vit": False, "select": False})]
)
def test_a_stages_own_clock_does_not_correct_it(stage: str, follows: dict[str, bool]):
    """Else a trace would agree with whatever was measured. The selection stands in the ViT, whose clock tells."""
    corrected = []
    for ms in (0.9, 0.5):
        pruned = {"vit": [4.0], "select": [0.9], "total": [9.0]} | {stage: [ms]}
        measured = {"base": {"vit": [4.0], "total": [9.0]}, "pruned": pruned}
        rows = stage_tables({"base": ONE, "pruned": ONE}, measured)["pruned"]
        corrected.append({row.stage: row.ms for row in rows})
    assert {name: corrected[0][name] != corrected[1][name] for name in follows} == follows
    assert corrected[0]["vit"] < 5 and corrected[0]["select"] < 1


def test_stages_that_are_dense_with_events_tell_more_than_long_ones():
    """A drift of 1 ms in 5 ms of few events must not be taken for the profiler's."""
    short = [ranged("prefill", 0, 2_000), ranged("vit", 0, 1_000), *(operator("add", 10 * n, 5) for n in range(9))]
    measured = {"base": {"vit": [4.0], "total": [9.0]}, "pruned": {"vit": [0.9], "total": [1.9]}}
    total = stage_tables({"base": ONE, "pruned": short}, measured)["base"][-1]
    cost = (3 / 4 * 1 / 4 + 10 / 0.9 * 0.1 / 0.9) / ((3 / 4) ** 2 + (10 / 0.9) ** 2)
    assert total.stage == "total" and total.traced_ms - total.ms == pytest.approx(4 * cost)


def test_repetitions_are_told_by_their_median():
    twice = [*ONE, *(Event(e.name, e.category, HOST, e.start_us + 200_000, e.duration_us * 3) for e in ONE[:1])]
    rows = table(twice, {"total": [50.0]})
    assert (rows["total"].traced_ms, rows["vit"].traced_ms) == (20, 2.5)
    assert top_operators(twice, 1)[0].calls == 0.5


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
