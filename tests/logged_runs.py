"""Small runs for the tests of log and store: a spec, records that depend on the sample alone, and a whole log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.records.figures import OK, Figures
from harness.records.records import Environment, LatencyRow, Record, ResourceRow
from harness.records.run_spec import RunSpec
from harness.store.log_writer import RunLog

HERE = Environment("machine-a", {"cpu": "two cores", "torch": "2.13"})
SPEC = RunSpec(
    method="divprune",
    settings={"metric": "cosine", "layers": (1, 2)},
    model="reference-a",
    model_revision="r1",
    benchmark="reference-suite",
    benchmark_revision="b1",
    budget_kind="layer_average",
    budget_value=0.5,
    seed=0,
    limit=None,
    sample_ids="5a",
    dtype="float32",
    attention="sdpa",
    image_backend="pil",
    device="cpu",
    code="c0de",
)


def spec(**changes: Any) -> RunSpec:
    return replace(SPEC, **changes)


def record(number: int, **changes: Any) -> Record:
    """The record of sample `number`; every third is wrong, two questions share an image."""
    right = number % 3 != 0
    made = Record(
        sample_id=f"q{number:04d}",
        cluster=f"image-{number // 2}",
        category="colour" if number % 2 else "count",
        answer="4",
        prediction="4" if right else "ü 5\n",
        score=float(right),
        full_tokens=64,
        asked_tokens=32,
        entering=(32,) * 16,
        kept={"interface": f"{number:x}"},
        recall_of_target=None if number % 5 == 0 else 0.5,
        seconds=0.25,
        flops={"llm": 7 * 10**12, "total": 10**13},
    )
    return replace(made, **changes)


def latency(pair: int, arm: str) -> LatencyRow:
    return LatencyRow("s1", "8x8+20", pair, arm, 0, False, "vit", 1.5 if arm == "base" else 1.0, "perf_counter_ns")


FIGURES = Figures(
    OK,
    n=6,
    full_tokens=64.0,
    asked_tokens=32.0,
    realised_tokens=32.0,
    accuracy=4 / 6,
    accuracy_low=0.1,
    accuracy_high=float("nan"),
    latency_clock="perf_counter_ns",
    lr=-0.1,
    indicative=True,
    base_ms={"vit": 1.5, "total": 2.5},
    pruned_ms={"vit": 1.0, "total": 2.0},
)


def write_run(folder: Path, run: RunSpec = SPEC, samples: int = 6) -> Path:
    """The log of a finished run of `samples` records, two latency rows and a resource."""
    path = folder / f"{run.run_id}.jsonl"
    with RunLog.open(path, run, HERE) as log:
        for number in range(samples):
            log.append(record(number))
        log.append(latency(0, "base"), latency(0, "pruned"), ResourceRow("s1", "base", "peak_allocated_bytes", 1e6))
        log.finish(FIGURES)
    return path
