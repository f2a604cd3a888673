"""One finished run as the document that is submitted: plain JSON, defined by submission.schema.json."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any

from harness.records.provenance import DISTRIBUTION
from harness.records.run_spec import RunSpec
from harness.store.log_reader import RunContents
from harness.submissions.rows import rows_hash, rows_of
from harness.submissions.run_checks import origin_of, over

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Submitted:
    """A run ready to be written. rows: its per-sample rows, sorted by sample id; sha256: their hash."""

    contents: RunContents
    spec: RunSpec
    rows: Sequence[dict[str, Any]]
    sha256: str

    @property
    def run_id(self) -> str:
        return self.spec.run_id


def submitted(contents: RunContents) -> Submitted:
    """A run's log as it is submitted. The id of a method from a file counts the file's name, not its folder."""
    spec = replace(contents.spec, method=public_name(contents.spec.method))
    rows = rows_of(spec.run_id, contents.records.values())
    return Submitted(contents, spec, rows, rows_hash(rows))


def public_name(method: str) -> str:
    """A method's name without the folders of its file: "/home/me/demo.py:Demo" -> "./demo.py:Demo"."""
    path, colon, name = method.partition(":")
    return f"./{PurePosixPath(path).name}{colon}{name}" if path.endswith(".py") else method


def document(run: Submitted, full: Submitted, randoms: Sequence[Submitted], method_source: bytes) -> dict[str, Any]:
    """The document of a run. full, randoms: its controls; method_source: the bytes of the method's file."""
    assert run.contents.figures is not None
    figures = replace(run.contents.figures, reference_run_id=full.run_id)
    facts = run.contents.sessions[0].environment
    first, *later = dict.fromkeys(session.environment.facts.get("git_commit") for session in run.contents.sessions)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "spec": asdict(run.spec),
        "method": {
            "origin": origin_of(run.spec.method),
            "file_sha256": file_hash(method_source),
        },
        "code": {
            "version": version(DISTRIBUTION),
            "commit": first,
            "dirty": facts.facts.get("git_dirty"),
            **({"later_commits": later} if later else {}),
        },
        "machine": {key: facts.facts[key] for key in ("machine_id", "hardware", "software")},
        "started_at": run.contents.sessions[0].at.isoformat(),
        "finished_at": run.contents.finished_at and run.contents.finished_at.isoformat(),
        "figures": {key: value for key, value in asdict(figures).items() if value not in (None, {})},
        "controls": {
            "full": {"run_id": full.run_id, "samples_sha256": full.sha256},
            "random": [_paired(run, random) for random in randoms],
        },
        "samples": {"n": len(run.rows), "sha256": run.sha256},
    }


def file_hash(source: bytes) -> str:
    """sha256 of a method's file; line endings do not count."""
    return hashlib.sha256(source.replace(b"\r\n", b"\n")).hexdigest()


def _paired(run: Submitted, random: Submitted) -> dict[str, Any]:
    return {
        "run_id": random.run_id,
        "samples_sha256": random.sha256,
        "seed": random.spec.seed,
        **over(run.contents.records, random.contents.records),
    }
