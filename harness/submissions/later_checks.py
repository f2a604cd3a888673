"""Check later additions to a batch against its rows: verifications, notes of code and retirements.

The questions of a note are drawn by its seed, so that nobody can choose them; `drawn_ids` says how.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.submissions.folder import Batch

QUESTIONS = 50  # that later code answers anew before a run counts as its own


def drawn_ids(sample_ids: Iterable[str], count: int, seed: int) -> list[str]:
    """`count` of a run's sample ids, or all if it has fewer, drawn by `seed`. The order of `sample_ids` is nothing."""
    ids = sorted(sample_ids)
    return random.Random(seed).sample(ids, min(count, len(ids)))


def later_files(batch: Batch) -> Iterator[tuple[str, str]]:
    """(file name, run id) of each file that was added to a batch."""
    yield from ((f"{run_id}.verification.json", run_id) for run_id in batch.verifications)
    yield from ((f"{run_id}.{code}.code.json", run_id) for run_id, notes in batch.notes.items() for code in notes)
    yield from ((f"{run_id}.retirement.json", run_id) for run_id in batch.retirements)


def later_problems(batch: Batch, run_id: str, sample_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(file name, what is wrong with it) of the files that were added for one run. sample_ids: of its rows."""
    sha256 = batch.documents[run_id]["samples"]["sha256"]
    notes, retirement = batch.notes.get(run_id, {}), batch.retirements.get(run_id)
    verification = batch.verifications.get(run_id)
    if verification is not None and verification["samples_sha256"] != sha256:
        yield f"{run_id}.verification.json", "it verifies other rows than those here"
    for code, note in notes.items():
        name = f"{run_id}.{code}.code.json"
        if note["code"] != code:
            yield name, f"it speaks of code {note['code']}, not of the one it is named for"
        if not agrees(note):
            yield name, "its questions were answered otherwise; that is a retirement, not a note"
        yield from ((name, words) for words in _drawing_problems(note, sha256, sample_ids))
    if retirement is not None:
        name = f"{run_id}.retirement.json"
        if agrees(retirement):
            yield name, "its questions were answered the same; that retires nothing"
        yield from ((name, words) for words in _drawing_problems(retirement, sha256, sample_ids))


def agrees(found: Mapping[str, Any]) -> bool:
    """True if every question that was answered anew had the same answer and the same token counts."""
    return found["same_answers"] == found["same_tokens"] == found["repeated"]


def _drawing_problems(found: Mapping[str, Any], sha256: str, sample_ids: Sequence[str]) -> Iterator[str]:
    if found["samples_sha256"] != sha256:
        yield "it answered the questions of other rows than those here"
        return
    ids, least = found["sample_ids"], min(QUESTIONS, len(sample_ids))
    if len(ids) < least:
        yield f"it answered {len(ids)} questions anew, at least {least} are needed"
    if found["repeated"] != len(ids) or max(found["same_answers"], found["same_tokens"]) > len(ids):
        yield f"its counts are not of the {len(ids)} questions that it names"
    if ids != drawn_ids(sample_ids, len(ids), found["seed"]):
        yield f"its questions are not those that seed {found['seed']} draws"
