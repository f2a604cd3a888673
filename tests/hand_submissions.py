"""A store whose runs can be submitted, on eight questions that nobody has to answer: the answers are chosen here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import make_suite

from harness.benchmarks import registry
from harness.benchmarks.base import Benchmark
from harness.benchmarks.embedded import open_suite
from harness.records.provenance import current_code, sample_ids_hash
from harness.records.records import Environment, Record, digest
from harness.records.run_spec import RunSpec
from harness.run.figures import figures_of
from harness.store.database import Store
from harness.store.log_reader import read_log
from harness.store.log_writer import RunLog
from harness.submissions.eligibility import choose
from harness.submissions.parquet import stream_runs, write_rows
from harness.submissions.rows import rows_hash
from harness.submissions.safe_json import canonical
from harness.submissions.writing import Written, write

HARDWARE = {"cpu": "two cores", "architecture": "x86_64", "cores": 2, "memory_gib": 8, "gpus": []}
SOFTWARE = {"os": "Linux 6", "python": "3.11.7", "torch": "2.13.0", "torch_cuda": None}
FULL_TOKENS, LAYERS = 12, 4
GIT = {"git_commit": "0123456789abcdef0123456789abcdef01234567", "git_dirty": False}


def here(**facts: Any) -> Environment:
    machine_id = digest(HARDWARE)
    told = {"machine_id": machine_id, "hardware": HARDWARE, "software": SOFTWARE, **GIT, **facts}
    return Environment(machine_id, told)


def spec_of(benchmark: Benchmark, method: str, budget: float = 0.5, **changes: Any) -> RunSpec:
    made = RunSpec(
        method=method,
        settings={},
        model="reference-a",
        model_revision="1ee1b279",
        benchmark=benchmark.name,
        benchmark_revision=benchmark.revision,
        budget_kind="layer_average",
        budget_value=1.0 if method == "full" else budget,
        seed=0,
        limit=None,
        sample_ids=sample_ids_hash(sample.id for sample in benchmark.samples),
        dtype="float32",
        attention="sdpa",
        image_backend="pil",
        device="cpu",
        code=current_code(method, "reference-a", benchmark.name) or "",
    )
    return replace(made, **changes)


def answered(benchmark: Benchmark, tokens: int, right: Sequence[bool]) -> list[Record]:
    """A record for each question; where it is not right, the answer is "nothing"."""
    cost = {"total": tokens * 10**6, "llm": tokens * 10**5, "paper_2ndm": tokens * 10**5}
    return [
        Record(
            sample_id=sample.id,
            cluster=sample.cluster,
            category=sample.category,
            answer=sample.answer,
            prediction=sample.answer if good else "nothing",
            score=float(good),
            full_tokens=FULL_TOKENS,
            asked_tokens=tokens,
            entering=(tokens,) * LAYERS,
            recall_of_target=0.5,
            seconds=0.1,
            flops=cost,
        )
        for sample, good in zip(benchmark.samples, right, strict=True)
    ]


def put(
    store: Store,
    benchmark: Benchmark,
    run: RunSpec,
    right: Sequence[bool],
    full: RunSpec | None = None,
    environment: Environment | None = None,
    change: Callable[[list[Record]], list[Record]] = list,
    **figures: Any,
) -> RunSpec:
    """Put a finished run into a store, as the runner would. figures: in place of those that were counted."""
    store.log_folder.mkdir(parents=True, exist_ok=True)
    path = store.log_path(run.run_id)
    tokens = FULL_TOKENS if run.method == "full" else round(FULL_TOKENS * float(run.budget_value or 0.5))
    with RunLog.open(path, run, environment or here()) as log:
        log.append(*change(answered(benchmark, tokens, right)))
        contents = read_log(path)
        measure = read_log(store.log_path(full.run_id)) if full else contents
        counted = figures_of(contents, measure, "")
        rows = list(contents.records.values())[: len(benchmark.samples)]
        log.finish(replace(counted, **{"metrics": benchmark.metrics(rows), **figures}))
    store.ingest(path)
    return run


@dataclass(frozen=True)
class Template:
    """A store and a folder of results that are made once and copied for each test.

    The store has no pruning, two random runs and one of divprune; the results have one batch with them all.
    """

    folder: Path
    benchmark: Benchmark

    def store_in(self, folder: Path) -> Store:
        shutil.copytree(self.folder / "store", folder / "store")
        return Store(folder / "store" / "store.duckdb")

    def results_in(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.folder / "results", folder / "results"))


@contextmanager
def prepared(folder: Path) -> Iterator[Template]:
    """A template; as long as the block, its eight questions are the embedded suite "reference"."""
    opener = partial(open_suite, "reference", make_suite(folder / "suite"), quick=False)
    benchmark, store = opener(), Store(folder / "store" / "store.duckdb")
    count = len(benchmark.samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "EMBEDDED_SUITES", {"reference": opener})
        full = put(store, benchmark, spec_of(benchmark, "full"), [True] * count)
        for seed in (0, 1):
            random = spec_of(benchmark, "random", seed=seed)
            put(store, benchmark, random, [number % 2 == seed for number in range(count)], full)
        put(store, benchmark, spec_of(benchmark, "divprune"), [number > 0 for number in range(count)], full)
        submit(store, folder / "results", "divprune")
        yield Template(folder, benchmark)


def submit(store: Store, results: Path, *words: str) -> list[Written]:
    """Submit runs of a store as the command does; nothing may be refused."""
    chosen, refused = choose(store, words)
    assert not refused, refused
    return write(chosen, results / "submissions")[0]


def forge(batch: Path, run_id: str, **cells: Any) -> None:
    """Change cells in every row of a run, and the hash that its document states of them."""
    forge_rows(batch, run_id, lambda rows: [{**row, **cells} for row in rows])


def forge_rows(batch: Path, run_id: str, change: Callable[[list], list], new_id: str | None = None) -> None:
    """Change a run's rows, and the hash that its document states of them. new_id: the document's, if another."""
    runs = dict(stream_runs(batch / "samples.parquet"))
    runs[run_id] = change(runs[run_id])
    write_rows(batch / "samples.parquet", [row for rows in runs.values() for row in rows])
    path = batch / f"{new_id or run_id}.json"
    if path.exists():
        document = json.loads(path.read_text())
        document["samples"]["sha256"] = rows_hash(runs[run_id])
        path.write_bytes(canonical(document))
