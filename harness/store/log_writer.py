"""Writing the log of one run: the truth that a crash cannot take back, and that the store is rebuilt from.

Each append is written through to the operating system at once, so SIGKILL costs at most the line being written; the
footer is also synced to the disk. Opening a log again drops a damaged tail and continues. The format, and what
happens to damage elsewhere, are in harness/store/log_reader.py.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from harness.records.errors import CorruptLog, DiskFull, StoreLocked
from harness.records.figures import Figures
from harness.records.provenance import without_home
from harness.records.records import Environment, LatencyRow, Record, ResourceRow
from harness.records.run_spec import RunSpec
from harness.store.log_reader import LOG_VERSION, REMEDY, RunContents, encode_line, read_log

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KINDS: Mapping[type, str] = {Record: "record", LatencyRow: "latency", ResourceRow: "resource"}


def set_aside(path: Path, word: str) -> Path:
    """Move a file to PATH.word-N with the first free N, and say where it went."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{word}-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


def lock_log(path: Path, timeout_s: float = 0.0) -> FileLock:
    """The lock of a log, held. Raises StoreLocked when another process still has it after the timeout."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        raise StoreLocked(f"another process is writing {path}; wait for that run, or end it") from None
    return lock


class RunLog:
    """The one writer of a log. Use it as a context manager; get one from `RunLog.open`.

    contents: what was there when it was opened; None when the log is new. `done` are the sample ids with a record.
    """

    def __init__(self, path: Path, lock: FileLock, contents: RunContents | None):
        self.path = path
        self.contents = contents
        self.done: set[str] = set(contents.records) if contents else set()
        self._lock = lock
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    @classmethod
    def open(cls, path: Path, spec: RunSpec, environment: Environment, *, restart: bool = False) -> RunLog:
        """Begin the log of `spec`, or continue it.

        restart: move an existing log aside (PATH.aside-N) and begin again.
        Raises StoreLocked when another process writes this log, CorruptLog when it cannot be continued (nothing is
        changed then), DiskFull.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_log(path)
        log = None
        try:
            if restart and path.exists():
                set_aside(path, "aside")
            contents = read_log(path) if path.exists() else None
            if contents is not None and contents.spec.run_id != spec.run_id:
                raise CorruptLog(f"{path} belongs to run {contents.spec.run_id}, not {spec.run_id}; {REMEDY}")
            log = cls(path, lock, contents)
            log._begin(spec, environment)
        except BaseException:  # whatever it was, Ctrl-C too: the lock goes back
            log.close() if log else lock.release()
            raise
        return log

    def append(self, *rows: Record | LatencyRow | ResourceRow) -> None:
        """Write rows; when it returns they survive the death of this process. Raises DiskFull, the log intact."""
        self._write("".join(encode_line(_KINDS[type(row)], _told(row)) for row in rows))
        self.done.update(row.sample_id for row in rows if isinstance(row, Record))

    def finish(self, figures: Figures) -> None:
        """Write the footer and sync the log to the disk. Not-a-number becomes null. Raises DiskFull, the log intact."""
        told = asdict(figures) | {"message": without_home(figures.message)}
        self._write(encode_line("footer", {"figures": _without_nan(told), "finished_at": _now()}))
        os.fsync(self._file)

    def close(self) -> None:
        """Give the file and its lock back; closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._lock.release()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, spec: RunSpec, environment: Environment) -> None:
        if self.contents is None:
            os.ftruncate(self._file, 0)  # a header that was torn while being written
            header = {"log_version": LOG_VERSION, "spec": asdict(spec), "environment": asdict(environment)}
            self._write(encode_line("header", {**header, "started_at": _now()}))
            return
        os.ftruncate(self._file, self.contents.good_bytes)
        note = {"environment": asdict(environment), "at": _now(), "dropped_bytes": self.contents.dropped_bytes}
        self._write(encode_line("resume", note))

    def _write(self, text: str) -> None:
        """All of `text`, or none of it."""
        raw = memoryview(text.encode())
        before = os.fstat(self._file).st_size
        try:
            while raw:
                raw = raw[os.write(self._file, raw) :]
        except BaseException as problem:  # Ctrl-C too must not leave half a line
            os.ftruncate(self._file, before)
            if isinstance(problem, OSError) and problem.errno in _FULL:
                raise DiskFull(
                    f"no space left to write {self.path}; everything before is kept: free some space, run again"
                ) from problem
            raise


def _told(row: Record | LatencyRow | ResourceRow) -> Mapping[str, Any]:
    """A row as it is written: an error names no home folder."""
    return {**vars(row), "error": without_home(row.error)} if isinstance(row, Record) else vars(row)


def _without_nan(figures: Mapping[str, Any]) -> dict[str, Any]:
    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: clean(item) for key, item in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: clean(value) for key, value in figures.items()}


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
