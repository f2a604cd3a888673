"""`harness verify --reidentify`: runs whose code changed since keep their answers where today's code gives the same.

Some questions of each such run are answered anew, drawn by a seed. If all agree, a note beside the run says that
today's code identity gives its answers; if one does not, a retirement. Both are files of their own: what was submitted
is never edited, and a note is superseded by one of a newer code identity. What has a current note is skipped, so that
the command can be stopped and given again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.latency.machine import machine
from harness.records.errors import HarnessError, UsageError
from harness.records.progress import Watcher
from harness.records.provenance import current_code, git_state
from harness.records.records import Record
from harness.request.opening import Sources
from harness.submissions.document import SCHEMA_VERSION
from harness.submissions.folder import (
    Batch,
    Problem,
    Rejected,
    batches,
    codes_of,
    is_retired,
    open_batch,
    submissions_folder,
)
from harness.submissions.later_checks import QUESTIONS, agrees, drawn_ids
from harness.submissions.parquet import stream_runs
from harness.submissions.row_checks import row_problems
from harness.submissions.run_checks import Claim, claim_of
from harness.submissions.safe_json import canonical
from harness.submissions.verifying import answer_again, counts, differences, name_of, request_of, same_answer
from methods.base import PruningError


@dataclass(frozen=True)
class Reidentified:
    """Answers of today's code to questions of a run. path: the file that says so; differences: a sentence for each."""

    run_id: str
    name: str
    path: Path
    document: Mapping[str, Any]
    differences: Sequence[str]

    @property
    def agreed(self) -> bool:
        return agrees(self.document)


def reidentify(
    path: Path,
    watcher: Watcher,
    *,
    questions: int = QUESTIONS,
    seed: int = 0,
    part: tuple[int, int] = (1, 1),
    sources: Sources | None = None,
    data_dir: Path | None = None,
    left: Callable[[str], object] = lambda words: None,
) -> Iterator[Reidentified]:
    """Answer `questions` of each run below `path` anew if today's code is not known to give its answers.

    path: results, a batch, or a RUN.json in one. part: (2, 3) does every third run from the second on, for as many
    processes. left: hears of each run that cannot be answered here, and why; it stays stale. Raises Rejected for a
    batch that is not what it should be.
    """
    assert questions >= QUESTIONS
    number = 0
    for folder, only in _places(path):
        wrong: list[Problem] = []
        batch = open_batch(folder, wrong)
        if wrong:
            raise Rejected(f"{wrong[0]}; `harness validate {folder}` says more")
        wanted = []
        for run_id in sorted(batch.documents):
            number += 1
            if only in (None, run_id) and number % part[1] == part[0] % part[1] and _is_outdated(batch, run_id):
                wanted.append(run_id)
        for run_id, rows in stream_runs(batch.samples, wanted) if wanted else ():
            if any(row_problems(batch.documents[run_id], rows)):
                raise Rejected(f"the rows of {run_id} are not what they should be; `harness validate {folder}` does")
            claim = claim_of(batch.documents[run_id], rows)
            try:
                found = _reidentified(claim, folder, watcher, questions, seed, sources, data_dir)
            except (HarnessError, PruningError) as problem:
                left(f"{name_of(claim.spec)} ({run_id[:8]}) stays stale: {problem}")
            else:
                yield found


def _places(path: Path) -> list[tuple[Path, str | None]]:
    """(a batch, the one run that is meant in it or None) of a path. Raises UsageError."""
    if path.is_file():
        return [(path.parent, path.name.partition(".")[0])]
    if (path / "samples.parquet").is_file():
        return [(path, None)]
    found = [(folder, None) for folder in batches(submissions_folder(path))]
    if not found:
        raise UsageError(f"no submission below {path}; give results, a batch, or a RUN.json in it")
    return found


def _is_outdated(batch: Batch, run_id: str) -> bool:
    """True unless today's code is known to give the run's answers, or known not to, or cannot be told."""
    spec = batch.documents[run_id]["spec"]
    if is_retired(batch, run_id) or spec["method"].startswith("./"):
        return False
    today = current_code(spec["method"], spec["model"], spec["benchmark"])
    return today is not None and today not in codes_of(batch, run_id)


def _reidentified(
    claim: Claim,
    folder: Path,
    watcher: Watcher,
    questions: int,
    seed: int,
    sources: Sources | None,
    data_dir: Path | None,
) -> Reidentified:
    request = request_of(claim, None, None, data_dir, None)
    ids = drawn_ids(claim.by_id, questions, seed)
    pairs, code = answer_again(claim, request, ids, watcher, sources)
    document = _document(claim, pairs, seed, code)
    name = f"{claim.run_id}.{code}.code.json" if agrees(document) else f"{claim.run_id}.retirement.json"
    _add(folder / name, canonical(document))
    told = [words for stated, here in pairs for words in differences(stated, here, other_code=True)]
    return Reidentified(claim.run_id, name_of(claim.spec), folder / name, document, told)


def _document(claim: Claim, pairs: Sequence[tuple[Record, Record]], seed: int, code: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": claim.run_id,
        "samples_sha256": claim.document["samples"]["sha256"],
        "code": code,
        "seed": seed,
        "sample_ids": [stated.sample_id for stated, _ in pairs],
        "repeated": len(pairs),
        "same_answers": sum(same_answer(*pair) for pair in pairs),
        "same_tokens": sum(counts(stated, True) == counts(here, True) for stated, here in pairs),
        "same_flops": sum(counts(stated, False) == counts(here, False) for stated, here in pairs),
        "commit": git_state().commit,
        "machine_id": machine().id,
        "reidentified_at": datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds"),
    }


def _add(path: Path, content: bytes) -> None:
    """A new file, whole or not at all. One that another process has written meanwhile stays."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
