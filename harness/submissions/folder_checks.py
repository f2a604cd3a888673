"""`harness validate results`: every submission against its own rows, its controls, its benchmark, and what was there.

One code path for `harness submit`, for a contributor's own check and for continuous integration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.records.records import digest
from harness.submissions.folder import Batch, Problem, batches, is_retired, open_batch, strangers
from harness.submissions.git_checks import blobs_at, edited, own_additions, published_problems
from harness.submissions.later_checks import later_files, later_problems
from harness.submissions.parquet import BadRows, stream_runs
from harness.submissions.rescoring import Judge
from harness.submissions.row_checks import row_problems
from harness.submissions.run_checks import (
    Claim,
    budget_problems,
    claim_of,
    control_problems,
    figure_problems,
    identity_problems,
    timing_problems,
)

MAX_TOTAL_BYTES = 64 * 2**20  # of all submissions
GROUP = ("model", "model_revision", "benchmark", "benchmark_revision", "sample_ids")


@dataclass(frozen=True)
class FolderReport:
    """What a check found. notes: what could not be checked here, and why; retired: of the runs."""

    problems: Sequence[Problem]
    notes: Sequence[str]
    batches: int
    runs: int
    retired: int = 0


def check_results(
    folder: Path, only: str | None = None, base: str = "HEAD", data_dir: Path | None = None, published: bool = True
) -> FolderReport:
    """Check a folder of submissions, or one batch of it (`only`), and the papers' numbers beside it.

    base: the commit whose submissions must still be there unchanged. data_dir: where published data sets lie.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    if published:
        problems += published_problems(folder.parent / "published")
    if not folder.is_dir():
        return FolderReport(problems, notes, 0, 0)
    problems += strangers(folder)
    problems += _size_problems(folder)
    opened = [open_batch(path, problems) for path in batches(folder)]
    chosen = [batch for batch in opened if only in (None, batch.name)]
    before = blobs_at(folder, base)
    if before is None:
        notes.append("git does not know this folder: whether an earlier submission was edited cannot be told")
    else:
        problems += edited(folder, before)
        problems += own_additions({batch.name: _files(batch) for batch in opened}, before)
    problems += _duplicates(opened)
    judge, shelf = Judge(data_dir), Shelf(opened)
    for batch in chosen:
        problems += batch_problems(batch, shelf, judge)
    names = sorted({one["spec"]["benchmark"] for batch in chosen for one in batch.documents.values()})
    notes += [note for note in map(judge.note, names) if note]
    retired = sum(is_retired(batch, run_id) for batch in chosen for run_id in batch.documents)
    return FolderReport(problems, notes, len(chosen), sum(len(batch.documents) for batch in chosen), retired)


def batch_name(documents: Sequence[Mapping[str, Any]]) -> str:
    """The name of a batch: its model, its benchmark, and a hash of its runs and their rows, so that none can change."""
    spec = documents[0]["spec"]
    words = f"{spec['model'].partition('@')[0].rpartition('/')[2]}-{spec['benchmark']}".lower()
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in words)[:80].strip("-")
    return f"{plain}-{digest(sorted([one['run_id'], one['samples']['sha256']] for one in documents))[:10]}"


@dataclass(frozen=True)
class Shelf:
    """The runs of all batches, to find controls by id and by the hash of their rows."""

    batches: Sequence[Batch]
    _known: dict[tuple[str, str], Claim | None] = field(default_factory=dict)

    def claim(self, run_id: str, sha256: str) -> Claim | None:
        """A submitted run with its rows; None if there is none, or its rows are not what they should be."""
        key = (run_id, sha256)
        if key not in self._known:
            self._known[key] = self._read(run_id, sha256)
        return self._known[key]

    def _read(self, run_id: str, sha256: str) -> Claim | None:
        for batch in self.batches:
            document = batch.documents.get(run_id)
            if document is not None and document["samples"]["sha256"] == sha256:
                try:
                    found = dict(stream_runs(batch.samples, [run_id]))
                except (BadRows, OSError):
                    continue
                if run_id in found and not any(row_problems(document, found[run_id])):
                    return claim_of(document, found[run_id])
        return None


def batch_problems(batch: Batch, shelf: Shelf, judge: Judge) -> Iterator[Problem]:
    """What is wrong with one batch. shelf: where its controls are looked for, itself among them."""
    if not batch.documents:
        yield Problem(batch.name, "it holds no run that can be read")
        return
    documents = list(batch.documents.values())
    if len({tuple(one["spec"][key] for key in GROUP) for one in documents}) > 1:
        yield Problem(batch.name, "its runs are of several models or sets of questions; submit each by itself")
    elif batch.name != batch_name(documents):
        yield Problem(batch.name, f"it should be named {batch_name(documents)} for the runs and rows that it holds")
    seen = set()
    try:
        for run_id, rows in stream_runs(batch.samples):
            seen.add(run_id)
            document = batch.documents.get(run_id)
            if document is None:
                yield Problem(f"{batch.name}/{batch.samples.name}", f"{len(rows)} rows are of no run here: {run_id!r}")
                continue
            where = f"{batch.name}/{run_id}.json"
            yield from (Problem(where, words) for words in _run_problems(document, rows, shelf, judge))
            ids = [row["sample_id"] for row in rows]
            yield from (Problem(f"{batch.name}/{file}", words) for file, words in later_problems(batch, run_id, ids))
    except (BadRows, OSError) as problem:
        yield Problem(batch.name, str(problem))
        return
    for run_id in batch.documents.keys() - seen:
        yield Problem(f"{batch.name}/{run_id}.json", f"{batch.samples.name} holds no rows of it")
    for file, run_id in later_files(batch):
        if run_id not in batch.documents:
            yield Problem(f"{batch.name}/{file}", "it speaks of no run of this batch")


def _run_problems(document: Mapping[str, Any], rows: list, shelf: Shelf, judge: Judge) -> Iterator[str]:
    wrong = list(row_problems(document, rows))
    if wrong:
        yield from wrong
        return
    claim = claim_of(document, rows)
    named = document["controls"]["full"]
    full = claim if named["run_id"] == claim.run_id else shelf.claim(named["run_id"], named["samples_sha256"])
    randoms = [shelf.claim(one["run_id"], one["samples_sha256"]) for one in document["controls"]["random"]]
    yield from identity_problems(claim)
    yield from budget_problems(claim)
    yield from control_problems(claim, full, randoms)
    if full is not None:
        yield from figure_problems(claim, full)
    yield from timing_problems(document["figures"])
    yield from judge.problems(claim)


def _duplicates(opened: Sequence[Batch]) -> Iterator[Problem]:
    """A run is submitted once from each machine."""
    known: dict[tuple[str, str], str] = {}
    for batch in opened:
        for run_id, document in batch.documents.items():
            key = (run_id, document["machine"]["machine_id"])
            first = known.setdefault(key, batch.name)
            if first != batch.name:
                yield Problem(f"{batch.name}/{run_id}.json", f"it was submitted before, in {first}")


def _size_problems(folder: Path) -> Iterator[Problem]:
    total = sum(path.lstat().st_size for path in folder.glob("*/*"))
    if total > MAX_TOTAL_BYTES:
        yield Problem("", f"the submissions have {total} bytes, at most {MAX_TOTAL_BYTES} are taken")


def _files(batch: Batch) -> list[str]:
    return [path.name for path in batch.path.iterdir()]
