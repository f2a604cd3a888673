"""Submissions written: checked by the code that will check them, then moved into place whole, never over another."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records.errors import EnvironmentProblem
from harness.records.records import RANDOM
from harness.store.log_reader import RunContents
from harness.submissions.document import Submitted, document, submitted
from harness.submissions.eligibility import Chosen, source_of
from harness.submissions.folder import SAMPLES, Batch, Problem, Rejected, batches, open_batch
from harness.submissions.folder_checks import GROUP, Shelf, batch_name, batch_problems
from harness.submissions.parquet import write_rows
from harness.submissions.rescoring import Judge
from harness.submissions.safe_json import canonical


@dataclass(frozen=True)
class Written:
    """One new batch. runs: (what it is, run id) of each; known: runs that an earlier batch holds already."""

    path: Path
    runs: Sequence[tuple[str, str]]
    files: Sequence[str]


def write(chosen: Sequence[Chosen], out: Path, data_dir: Path | None = None) -> tuple[list[Written], list[str]]:
    """Write runs and their controls below `out`, one batch for each model and set of questions.

    Gives the batches and what was left out because it is there already. Nothing is written unless everything passes
    the checks of `harness validate`. Raises Rejected with what is wrong.
    """
    before = [open_batch(path, []) for path in batches(out)]
    groups: dict[tuple, list[Chosen]] = {}
    for one in chosen:
        groups.setdefault(tuple(getattr(one.run.spec, key) for key in GROUP), []).append(one)
    told: list[str] = []
    written = []
    with _staging(out) as folder:
        for members in groups.values():
            made = _write_batch(members, folder, before, told)
            if made is not None:
                written.append(made)
        wrong: list[Problem] = []
        fresh = [open_batch(one.path, wrong) for one in written]
        shelf, judge = Shelf([*fresh, *before]), Judge(data_dir)
        wrong += [problem for batch in fresh for problem in batch_problems(batch, shelf, judge)]
        if wrong:
            raise Rejected("nothing was written:\n" + "\n".join(f"  {problem}" for problem in wrong[:20]))
        out.mkdir(parents=True, exist_ok=True)
        return [_moved(one, out) for one in written], told


def _write_batch(members: Iterable[Chosen], folder: Path, before: Sequence[Batch], told: list[str]) -> Written | None:
    known = _Known(before)
    runs, documents = {}, {}
    for one in members:
        full = known.submitted(one.full)
        randoms = [known.submitted(random) for random in one.randoms]
        wanted = [(known.submitted(one.run), full, randoms), (full, full, [])]
        wanted += [(random, full, []) for random in randoms]
        for run, its_full, its_randoms in wanted:
            place = known.place(run)
            if place is not None:
                if run is wanted[0][0]:
                    told.append(f"{_name(run)} ({run.run_id[:8]}) is there already, in {place}")
            elif run.run_id not in documents or its_randoms:
                runs[run.run_id] = run
                documents[run.run_id] = document(run, its_full, its_randoms, source_of(run.contents.spec.method))
    if not documents:
        return None
    path = folder / batch_name(list(documents.values()))
    path.mkdir()
    for run_id, made in documents.items():
        (path / f"{run_id}.json").write_bytes(canonical(made))
    write_rows(path / SAMPLES, [row for run in runs.values() for row in run.rows])
    files = [*(f"{run_id}.json" for run_id in sorted(documents)), SAMPLES]
    return Written(path, [(_name(run), run.run_id) for run in runs.values()], files)


class _Known:
    """What earlier batches hold, and logs made ready once."""

    def __init__(self, before: Sequence[Batch]):
        self._places: dict[tuple[str, str], str] = {}
        self._machines: dict[tuple[str, str], str] = {}
        self._ready: dict[str, Submitted] = {}
        for batch in before:
            for run_id, found in batch.documents.items():
                self._places[(run_id, found["samples"]["sha256"])] = batch.name
                self._machines[(run_id, found["machine"]["machine_id"])] = batch.name

    def submitted(self, contents: RunContents) -> Submitted:
        run_id = contents.spec.run_id
        if run_id not in self._ready:
            self._ready[run_id] = submitted(contents)
        return self._ready[run_id]

    def place(self, run: Submitted) -> str | None:
        """The batch that holds this very run. Raises Rejected if one holds the same run with other rows."""
        machine = run.contents.sessions[0].environment.machine_id
        place = self._places.get((run.run_id, run.sha256))
        other = self._machines.get((run.run_id, machine))
        if place is None and other is not None:
            raise Rejected(
                f"run {run.run_id} was submitted from this machine with other answers, in {other}; a submission is "
                "never replaced: find out why the answers differ"
            )
        return place


def _name(run: Submitted) -> str:
    seed = f" seed {run.spec.seed}" if run.spec.method == RANDOM or run.spec.seed else ""
    value: Any = run.spec.budget_value
    words = f"{value:.0%}" if isinstance(value, float) else str(value or "native")
    return f"{run.spec.method} {words}{seed}"


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder on the same disk as `out`, gone afterwards."""
    try:
        parent = next(folder for folder in out.absolute().parents if folder.is_dir())
        folder = Path(tempfile.mkdtemp(prefix=".submitting-", dir=parent))
    except OSError as problem:
        raise EnvironmentProblem(f"cannot write below {out}: {problem}; give another --out") from problem
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _moved(made: Written, out: Path) -> Written:
    target = out / made.path.name
    if target.exists():
        raise Rejected(f"{target} is there already; nothing is overwritten")
    made.path.chmod(0o755)
    os.rename(made.path, target)
    return Written(target, made.runs, made.files)
