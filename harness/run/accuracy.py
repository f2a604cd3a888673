"""The accuracy pass: every sample answered once, in order, each record safe in the log before the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.records.progress import Stop, Watcher
from harness.records.records import Sample
from harness.request.answering import Answering

if TYPE_CHECKING:
    from harness.store.log_writer import RunLog


def answer_all(answering: Answering, samples: Sequence[Sample], log: RunLog, watcher: Watcher, stop: Stop) -> bool:
    """Append a record for every sample that the log lacks; True when all are there, False when asked to stop."""
    missing = [sample for sample in samples if sample.id not in log.done]
    for sample in missing:
        if stop():
            return False
        log.append(answering.answer(sample))
        watcher.advanced()
    return True
