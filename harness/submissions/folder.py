"""The folder of submissions on disk: results/submissions/BATCH/, written by one `harness submit`, never changed.

RUN.json                 the document of one run, named by its 16-digit id (submission.schema.json)
samples.parquet          the rows of all runs of the batch (harness/submissions/rows.py)
RUN.verification.json    added later by `harness verify` (verification.schema.json)
RUN.CODE.code.json       added later by `harness verify --reidentify`: the code identity CODE gives the same answers
RUN.retirement.json      added by the same where it gives others (both: reidentification.schema.json)
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.records.errors import HarnessError, UsageError
from harness.submissions.safe_json import BadDocument, load_json, schema, violations

SUBMISSIONS = "submissions"
SAMPLES = "samples.parquet"
BATCH_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,119}")
RUN_NAME = re.compile(r"([0-9a-f]{16})\.json")
VERIFICATION_NAME = re.compile(r"([0-9a-f]{16})\.verification\.json")
NOTE_NAME = re.compile(r"([0-9a-f]{16})\.([0-9a-f]{16})\.code\.json")
RETIREMENT_NAME = re.compile(r"([0-9a-f]{16})\.retirement\.json")
LATER_NAMES = (VERIFICATION_NAME, NOTE_NAME, RETIREMENT_NAME)  # what others add to a batch
MAX_FILES = 50_000  # of one batch, those that were added later among them
MAX_RUNS = 5000  # of one batch


@dataclass(frozen=True)
class Problem:
    """What is wrong, and where: a path below the submissions, or "" for all of them."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


@dataclass(frozen=True)
class Batch:
    """One batch as it lies there, each mapping by run id.

    verifications: what a repetition found. notes: code identity -> what it answered anew, all of it the same.
    retirements: the same of a code identity that answered otherwise.
    """

    path: Path
    documents: Mapping[str, Mapping[str, Any]]
    verifications: Mapping[str, Mapping[str, Any]]
    notes: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    retirements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def samples(self) -> Path:
        return self.path / SAMPLES


def submissions_folder(path: Path) -> Path:
    """The folder of batches that a path lies in or holds: results, results/submissions, a batch, or a file in one.

    Raises UsageError.
    """
    for folder in (path, *path.absolute().parents):
        if folder.name == SUBMISSIONS:
            return folder
    if (path / SUBMISSIONS).is_dir():
        return path / SUBMISSIONS
    raise UsageError(f"no folder {SUBMISSIONS} in {path} nor above it; give results/ or something below it")


def batches(folder: Path) -> list[Path]:
    """The folders of batches, sorted; links and files are left out."""
    if not folder.is_dir():
        return []
    return sorted(one for one in folder.iterdir() if stat.S_ISDIR(one.lstat().st_mode))


def strangers(folder: Path) -> Iterator[Problem]:
    """What has no business in the folder of batches: links, files, odd names, deeper folders."""
    for one in sorted(folder.iterdir()):
        kind = one.lstat().st_mode
        if one.name == "README.md" and stat.S_ISREG(kind):
            continue
        if not stat.S_ISDIR(kind) or not BATCH_NAME.fullmatch(one.name):
            yield Problem(shown(one.name), f"only folders named like {BATCH_NAME.pattern} lie here")
            continue
        for inside in sorted(one.iterdir()):
            where = f"{one.name}/{shown(inside.name)}"
            known = any(pattern.fullmatch(inside.name) for pattern in (RUN_NAME, *LATER_NAMES))
            if not stat.S_ISREG(inside.lstat().st_mode):
                yield Problem(where, "it is no plain file; links and folders are refused")
            elif not (known or inside.name == SAMPLES):
                yield Problem(where, f"a batch holds RUN.json, what verify adds to it, and {SAMPLES} only")


def open_batch(path: Path, problems: list[Problem]) -> Batch:
    """The documents of a batch that can be read; what is wrong with the others goes to `problems`."""
    names = [one.name for one in sorted(path.iterdir()) if stat.S_ISREG(one.lstat().st_mode)]
    if len(names) > MAX_FILES or sum(RUN_NAME.fullmatch(name) is not None for name in names) > MAX_RUNS:
        problems.append(Problem(path.name, f"it has {len(names)} files; at most {MAX_RUNS} runs are taken at once"))
        return Batch(path, {}, {})
    documents = _documents(path, names, RUN_NAME, "submission", problems)
    verifications = _documents(path, names, VERIFICATION_NAME, "verification", problems)
    retirements = _documents(path, names, RETIREMENT_NAME, "reidentification", problems)
    notes: dict[str, dict[str, Any]] = {}
    for (run_id, code), note in _documents(path, names, NOTE_NAME, "reidentification", problems).items():
        notes.setdefault(run_id, {})[code] = note
    return Batch(path, documents, verifications, notes, retirements)


def _documents(
    path: Path, names: Sequence[str], pattern: re.Pattern[str], kind: str, problems: list[Problem]
) -> dict[Any, Mapping[str, Any]]:
    """What the pattern's groups name (one: the text, several: a tuple) -> the document of that file."""
    found = {}
    for named in filter(None, map(pattern.fullmatch, names)):
        document = _document(path / named.string, kind, named.group(1), problems)
        if document is not None:
            found[named.groups() if pattern.groups > 1 else named.group(1)] = document
    return found


def _document(path: Path, kind: str, run_id: str, problems: list[Problem]) -> Mapping[str, Any] | None:
    where = f"{path.parent.name}/{path.name}"
    try:
        found = load_json(path)
    except (BadDocument, OSError) as problem:
        problems.append(Problem(where, str(problem)))
        return None
    wrong = list(violations(found, schema(kind), schema(kind)))
    if not wrong and found["run_id"] != run_id:
        wrong = [f"it speaks of run {found['run_id']}, not of the one it is named for"]
    problems += [Problem(where, one) for one in wrong[:10]]
    return None if wrong else found


def shown(name: str) -> str:
    """A stranger's file name as it can be printed."""
    return name.encode("ascii", "backslashreplace").decode()[:80]


def verified(batch: Batch, run_id: str) -> bool:
    """Whether a repetition of that very run agreed."""
    found = batch.verifications.get(run_id)
    sha256 = batch.documents[run_id]["samples"]["sha256"]
    return found is not None and found["agreed"] and found["samples_sha256"] == sha256


def codes_of(batch: Batch, run_id: str) -> set[str]:
    """The code identities that are known to give a run's answers: the one that ran, and those that did so again."""
    document = batch.documents[run_id]
    sha256 = document["samples"]["sha256"]
    again = {code for code, note in batch.notes.get(run_id, {}).items() if note["samples_sha256"] == sha256}
    return {document["spec"]["code"], *again}


def is_retired(batch: Batch, run_id: str) -> bool:
    """True if later code gave other answers to that very run's questions: it is neither shown nor ranked."""
    found = batch.retirements.get(run_id)
    return found is not None and found["samples_sha256"] == batch.documents[run_id]["samples"]["sha256"]


class Rejected(HarnessError):
    """Runs that cannot be submitted, or submissions that are not what they say."""
