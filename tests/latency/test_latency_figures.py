"""From the rows of a log to the columns of a run: what is derived, what is left null, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from logged_runs import HERE, SPEC, record

from harness.latency.figures import latency_figures
from harness.latency.roofline import work_rows
from harness.latency.statistics import reasons_for_doubt, was_throttled
from harness.records.figures import OK, Figures
from harness.records.records import LatencyRow, ResourceRow
from harness.store.database import Store
from harness.store.log_reader import RunContents, read_log
from harness.store.log_writer import RunLog

WORK = {"vit": 4, "projector": 1, "select": 0, "llm": 10}


def repetition(pair: int, arm: str, total_ms: float) -> list[LatencyRow]:
    times = {"total": total_ms, "vit": total_ms, "wall": total_ms + 1}
    rows = [
        LatencyRow("1", "2x2+4", pair, arm, int(arm == "pruned"), False, stage, ms, "device_event")
        for stage, ms in times.items()
    ]
    return [*rows, LatencyRow("1", "2x2+4", pair, "base", 0, False, "preprocess", 3.0, "perf_counter_ns")]


RESOURCES = [
    ResourceRow("1", "base", "peak_allocated_bytes", 100.0),
    ResourceRow("2", "base", "peak_allocated_bytes", 120.0),
    ResourceRow("1", "base", "kv_cache_bytes", 64.0),
    ResourceRow("1", "pruned", "kv_cache_bytes", 32.0),
    ResourceRow("1", "base", "prefills_per_s/1", 20.0),
    ResourceRow("2", "base", "prefills_per_s/1", 30.0),
    ResourceRow("1", "pruned", "attention_calls/llm_prefill/flash", 14.0),
    ResourceRow("1", "pruned", "attention_calls/llm_prefill/unfused", 2.0),
    ResourceRow("1", "base", "joules_per_prefill", 9.0),
    ResourceRow("1", "base", "measured_flops_per_s", 1000.0),
    ResourceRow("1", "base", "measured_bytes_per_s", 1e9),
    *work_rows("1", "base", "2x2+4", WORK),
    *work_rows("1", "pruned", "2x2+4", {**WORK, "llm": 5}),
    *work_rows("1", "late", "2x2+4", {**WORK, "llm": 0}),
    ResourceRow("1", "base", "throttle_bits/2x2+4/0/0/before", 1.0),
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "x.runs" / f"{SPEC.run_id}.jsonl"


@pytest.fixture
def contents(log: Path) -> RunContents:
    with RunLog.open(log, SPEC, HERE) as opened:
        opened.append(record(0))
        for pair in range(6):
            opened.append(*repetition(pair, "base", 10), *repetition(pair, "pruned", 8), *RESOURCES)
    found = read_log(log)
    assert found is not None
    return found


def test_every_figure_is_told_from_the_rows(contents: RunContents):
    figures = latency_figures(contents, HERE.machine_id)
    assert figures["lr"] == pytest.approx(0.2)
    assert figures["latency_interval"] == "within-session" and figures["latency_pairs"] == 6
    assert (figures["base_p90_ms"], figures["base_ttft_ms"], figures["pruned_ttft_ms"]) == (10, 3 + 11, 3 + 9)
    assert figures["host_bound"] is True  # 11 ms on the host for 10 on the device
    assert figures["throttled"] is False  # idle before a repetition is no throttling
    assert (figures["base_peak_bytes"], figures["pruned_peak_bytes"]) == (120, None)
    assert (figures["base_kv_cache_bytes"], figures["pruned_kv_cache_bytes"]) == (64, 32)
    assert figures["base_prefills_per_s"] == {"1": 25, "8": None, "32": None}
    assert "prompt by prompt" in figures["throughput_note"]
    assert (figures["base_joules"], figures["pruned_joules"]) == (9, None)
    assert figures["pruned_attention"] == {"llm_prefill": "flash x14, unfused x2"} and figures["base_attention"] == {}
    assert (figures["roofline_peaks"], figures["roofline_lr"]) == ("measured", pytest.approx(5 / 15))
    assert figures["late_ceiling_lr"] == pytest.approx(10 / 15)
    assert figures["indicative_because"] == "1 of 5 sessions; 6 of 30 pairs in a shape"


def test_another_machines_rows_do_not_count(contents: RunContents):
    assert latency_figures(contents, "another") == {}


def test_the_store_shows_them_and_a_rebuild_shows_the_same(contents: RunContents, log: Path, tmp_path: Path):
    with RunLog.open(log, SPEC, HERE) as opened:
        opened.finish(Figures(OK, n=1, **latency_figures(contents, HERE.machine_id)))
    store = Store(tmp_path / "x.duckdb")
    store.ingest(log)
    row = store.run(SPEC.run_id)
    assert row["base_prefills_per_s"] == {"1": 25, "8": None, "32": None}
    assert row["pruned_attention"] == {"llm_prefill": "flash x14, unfused x2"}
    assert (row["host_bound"], row["throttled"], row["pruned_joules"]) == (True, False, None)
    store.rebuild()
    assert store.run(SPEC.run_id) == row


def test_every_reason_not_to_publish_is_named():
    assert reasons_for_doubt("device_event", 5, 30, (0.99, 1.01), False) == ()
    assert reasons_for_doubt("device_event", 5, 30, None, None) == ()
    assert reasons_for_doubt("perf_counter_ns", 4, 29, (1.01, 1.02), True) == (
        "timed on a CPU", "4 of 5 sessions", "29 of 30 pairs in a shape", "the device was throttled",
        "equal arms differed (A/A)",
    )  # fmt: skip
    (noisy,) = reasons_for_doubt("device_event", 5, 30, (0.93, 1.07), False)
    assert noisy.startswith("noisy")


def test_a_device_is_throttled_by_heat_and_power_in_more_than_a_few_moments():
    def moments(*bits: int) -> bool | None:
        return was_throttled([ResourceRow("1", "base", f"throttle_bits/x/{i}", float(b)) for i, b in enumerate(bits)])

    assert moments(*[0] * 99, 32) is False
    assert moments(*[0] * 18, 32, 4) is True
    assert moments(1, 2, 16) is False  # idle, an application's clock, a synchronised boost
    assert moments() is None
