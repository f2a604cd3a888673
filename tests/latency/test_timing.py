"""Which samples are timed, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.benchmarks.embedded import open_suite
from harness.budget.spec import BudgetSpec
from harness.latency.protocol import Protocol, summarise
from harness.latency.roofline import roofline
from harness.latency.session import QUICK_PAIRS, cases_of, protocol_for, spread, time_session
from harness.models.loading import OpenModel
from harness.records.errors import Interrupted
from harness.records.records import LatencyRow, ResourceRow, Sample
from harness.request.open_run import OpenRun
from harness.request.opening import Sources, open_bench
from harness.request.options import RunOptions
from harness.request.request import Request


def sample(name: str) -> Sample:
    return Sample(name, "c", "f", name, "a", ("i",))


@pytest.fixture
def run_of(reference_a: OpenModel, suite_folder: Path):
    def of(method: str, budget: str) -> OpenRun:
        sources = Sources(
            lambda name, **settings: reference_a, lambda name: open_suite(name, suite_folder, quick=False)
        )
        request = Request(method, BudgetSpec.parse(budget))
        bench = open_bench(request, sources)
        return bench.open(bench.cell(request))

    return of


def test_samples_are_spread_over_the_range_of_lengths():
    samples = [sample("x" * length) for length in (5, 1, 3, 2, 4)]
    chosen = spread(samples, 3, lambda one: len(one.question))
    assert [len(one.question) for one in chosen] == [1, 3, 5]
    assert spread(samples[:2], 3, lambda one: len(one.question)) == [samples[1], samples[0]]


def test_equal_shapes_are_timed_once_but_native_samples_each(run_of):
    assert list(cases_of(run_of("random", "50%"))) == ["3x4+10"]  # eight questions of one length
    assert len(cases_of(run_of("fastv", "native"))) == 8


def test_a_session_has_every_stage_of_both_arms_and_the_memory_of_both(run_of):
    rows = time_session(run_of("random", "50%"), Protocol(pairs=2, warmup=1), lambda: False)
    timed = [row for row in rows if isinstance(row, LatencyRow)]
    assert {row.shape_key for row in timed} == {"3x4+10"}
    for arm in ("base", "pruned"):
        assert {"vit", "projector", "llm_prefill", "total", "wall"} <= {r.stage for r in timed if r.arm == arm}
    assert "select" in {row.stage for row in timed if row.arm == "pruned"}
    cache = {row.arm: row.value for row in rows if isinstance(row, ResourceRow) and row.name == "kv_cache_bytes"}
    assert cache["base"] / cache["pruned"] == pytest.approx((12 + 10) / (6 + 10))  # visual + text tokens


def test_a_session_stores_what_its_limits_are_told_from(run_of):
    rows = time_session(run_of("random", "50%"), Protocol(pairs=2, warmup=1), lambda: False)
    resources = [row for row in rows if isinstance(row, ResourceRow)]
    value = {(row.arm, row.name): row.value for row in resources}
    for arm in ("base", "pruned"):
        assert value[arm, "attention_calls/vit/flash"] == 8 and value[arm, "attention_calls/llm_prefill/flash"] == 16
        assert value[arm, "prefills_per_s/1"] > 0 and (arm, "prefills_per_s/8") not in value
    llm = [value[arm, "work_flops/llm_prefill/3x4+10"] for arm in ("base", "pruned", "late")]
    assert llm == sorted(llm, reverse=True) and len(set(llm)) == 3
    assert value["base", "work_flops/select/3x4+10"] == value["late", "work_flops/select/3x4+10"] == 0
    found = roofline(resources, summarise([row for row in rows if isinstance(row, LatencyRow)]))
    assert found is not None
    assert 0 <= found.roofline_lr <= found.late_ceiling_lr < 1  # 0 where the weights' way from memory sets the pace


def test_a_session_stops_when_told_to(run_of):
    with pytest.raises(Interrupted, match="while timing"):
        time_session(run_of("random", "50%"), Protocol(pairs=2, warmup=1), lambda: True)


def test_the_default_is_quick_on_a_cpu_and_publishable_elsewhere():
    quick, published = protocol_for(RunOptions(device="cpu")), protocol_for(RunOptions(device="cuda"))
    assert (quick.pairs, quick.seconds, quick.sessions) == (QUICK_PAIRS, 30.0, 1)
    assert (published.pairs, published.seconds, published.sessions) == (30, None, 5)


def test_what_the_user_gives_is_the_bound():
    assert protocol_for(RunOptions(device="cpu", pairs=7, sessions=3)) == Protocol(pairs=7, sessions=3)
    assert protocol_for(RunOptions(device="cuda", minutes=2.0)) == Protocol(seconds=120.0, sessions=1)
