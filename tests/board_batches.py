"""Batches of submissions made from the small runs of stored_runs.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.records.records import Environment
from harness.records.run_spec import RunSpec
from harness.store.database import Store
from harness.store.log_reader import RunContents, read_log
from harness.submissions.document import document, submitted
from harness.submissions.folder import SAMPLES
from harness.submissions.parquet import write_rows

MACHINE = {"machine_id": "ab" * 8, "hardware": {"cpu": "theirs"}, "software": {"torch": "2.13"}}


def submit(store: Store, results: Path, full: RunSpec, others: Sequence[RunSpec], batch: str = "a-batch") -> Path:
    """Write runs of a store and their unpruned control as one batch below `results`. Gives its folder."""
    folder = results / "submissions" / batch
    folder.mkdir(parents=True)
    made = [submitted(_on_a_machine(read_log(store.log_path(spec.run_id)))) for spec in (full, *others)]
    base = made[0]
    randoms = [one for one in made if one.spec.method == "random"]
    for one in made:
        against = [] if one.spec.method in ("full", "random") else randoms
        told = document(one, base, against, b"source")
        (folder / f"{one.run_id}.json").write_text(json.dumps(told))
    write_rows(folder / SAMPLES, [row for one in made for row in one.rows])
    return folder


def _on_a_machine(contents: RunContents) -> RunContents:
    session = contents.sessions[0]
    return replace(contents, sessions=(replace(session, environment=Environment(MACHINE["machine_id"], MACHINE)),))


def verify(folder: Path, run: RunSpec) -> None:
    """Say that somebody repeated a run and found the same."""
    sha256 = json.loads((folder / f"{run.run_id}.json").read_text())["samples"]["sha256"]
    counts = dict.fromkeys(("repeated", "same_answers", "same_tokens"), 4)
    who = {"code": "0" * 16, "commit": None, "machine_id": "0" * 16, "verified_at": "2026-11-21T12:00:00"}
    told = {"schema_version": 1, "run_id": run.run_id, "agreed": True, "samples_sha256": sha256, "seed": 0}
    told |= counts | who
    (folder / f"{run.run_id}.verification.json").write_text(json.dumps(told))


def retire(folder: Path, run: RunSpec) -> None:
    """Say that later code answered a run's questions otherwise."""
    sha256 = json.loads((folder / f"{run.run_id}.json").read_text())["samples"]["sha256"]
    told = {"schema_version": 1, "run_id": run.run_id, "samples_sha256": sha256, "code": "0" * 16, "seed": 0}
    told |= dict.fromkeys(("repeated", "same_tokens", "same_flops"), 1) | {"same_answers": 0, "sample_ids": ["q0001"]}
    told |= {"commit": None, "machine_id": "0" * 16, "reidentified_at": "2026-11-21T12:00:00"}
    (folder / f"{run.run_id}.retirement.json").write_text(json.dumps(told))
