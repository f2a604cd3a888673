"""A run's samples shared by several workers: each writes its shard of them to a log of its own, beside the run's.

The run's own log takes them in before anything else is answered, so that a run is the same however it was shared, and
goes on with another number of shards, or none. The identity of a run knows nothing of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.records.records import Record, Sample
from harness.store.log_reader import read_log
from harness.store.log_writer import RunLog, lock_log, set_aside


@dataclass(frozen=True)
class Shard:
    """Every `of`-th sample from `index` on."""

    index: int
    of: int

    def samples(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        return samples[self.index :: self.of]

    def log_path(self, log: Path) -> Path:
        """Where this shard of the run with that log is written."""
        return log.with_name(f"{log.name}.shard-{self.index}-of-{self.of}")

    def __str__(self) -> str:
        return f"part {self.index + 1} of {self.of}"


def shard_records(log: Path) -> dict[str, Record]:
    """The records in all shards of the run with that log, by sample id. Raises CorruptLog."""
    found: dict[str, Record] = {}
    for path in _shard_logs(log):
        contents = read_log(path)
        found |= contents.records if contents else {}
    return found


def take_in_shards(log: RunLog, samples: Sequence[Sample]) -> None:
    """Add what the shards of a run hold to its own log. Raises StoreLocked while one is being written, CorruptLog."""
    for path in _shard_logs(log.path):
        lock_log(path).release()
    records = shard_records(log.path)
    if left := [records[one.id] for one in samples if one.id in records and one.id not in log.done]:
        log.append(*left)


def remove_shards(log: Path) -> None:
    """Remove the shards of a run whose own log has all that they hold."""
    for path in _shard_logs(log):
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)


def set_shards_aside(log: Path) -> None:
    """Move the shards of a run aside, since it begins again."""
    for path in _shard_logs(log):
        set_aside(path, "aside")


def _shard_logs(log: Path) -> list[Path]:
    mine = re.compile(re.escape(log.name) + r"\.shard-\d+-of-\d+")
    return sorted(path for path in log.parent.glob(f"{log.name}.shard-*") if mine.fullmatch(path.name))
