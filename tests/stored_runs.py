"""Stores with runs whose scores a test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from logged_runs import HERE, record, spec

from harness.records.figures import Figures
from harness.records.records import Record
from harness.records.run_spec import RunSpec
from harness.run.figures import figures_of
from harness.store.database import Store
from harness.store.log_reader import read_log
from harness.store.log_writer import RunLog

FULL = {"method": "full", "settings": {}, "budget_value": 1.0}


def arm(method: str, **changes: Any) -> RunSpec:
    """The spec of a method's run, of no pruning for "full"."""
    return spec(**{**(FULL if method == "full" else {"method": method, "settings": {}}), **changes})


def add_run(
    store: Store,
    run: RunSpec,
    scores: Sequence[float],
    full: RunSpec | None = None,
    answers: Sequence[str] | None = None,
    per_image: int = 1,
    **figures: Any,
) -> RunSpec:
    """Put a finished run into the store: figures as the runner counts them, `figures` in their place.

    full: the unpruned run, already there. answers: "right" or "wrong" by default.
    """
    store.log_folder.mkdir(parents=True, exist_ok=True)
    path = store.log_path(run.run_id)
    tokens = 64 if run.method == "full" else 32
    with RunLog.open(path, run, HERE) as log:
        log.append(*(_answered(number, score, tokens, answers, per_image) for number, score in enumerate(scores)))
        contents = read_log(path)
        measure = read_log(store.log_path(full.run_id)) if full else contents
        log.finish(replace(figures_of(contents, measure, HERE.machine_id), **figures))
    store.ingest(path)
    return run


def _answered(number: int, score: float, tokens: int, answers: Sequence[str] | None, per_image: int) -> Record:
    return record(
        number,
        score=score,
        prediction=answers[number] if answers else "right" if score else "wrong",
        cluster=f"image-{number // per_image}",
        asked_tokens=tokens,
        entering=(tokens,) * 4,
        flops={"total": tokens * 10**6, "llm": tokens * 10**5, "paper_2ndm": tokens * 10**5},
    )


def add_stopped(store: Store, run: RunSpec, figures: Figures) -> RunSpec:
    """Put a run without samples into the store: infeasible, or an error."""
    store.log_folder.mkdir(parents=True, exist_ok=True)
    with RunLog.open(store.log_path(run.run_id), run, HERE) as log:
        log.finish(figures)
    store.ingest(store.log_path(run.run_id))
    return run


def new_store(folder: Path) -> Store:
    return Store(folder / "store.duckdb")
