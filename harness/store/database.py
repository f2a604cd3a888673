"""The store: runs in DuckDB, one short turn at a time, always rebuildable from the run logs beside it.

`X.duckdb` has its logs in `X.runs/`. Every open, reading or writing, happens under the lock file `X.duckdb.lock`,
held from before the connection opens until after it closes: DuckDB refuses a second process, and the lock makes
processes wait their turn instead.

    runs = harness.store.database.load("results/local.duckdb").runs
"""

from __future__ import annotations

import json
import os
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pandas as pd
import platformdirs
from filelock import FileLock, Timeout

from harness.records.errors import (
    CorruptLog,
    DiskFull,
    EnvironmentProblem,
    StoreCorrupt,
    StoreLocked,
    UnknownRun,
    UsageError,
)
from harness.records.provenance import DISTRIBUTION, current_code
from harness.store.log_reader import RunTexts, read_log, read_texts, texts_of
from harness.store.log_writer import set_aside
from harness.store.rows import replace_runs
from harness.store.schema import is_current, migrate

LOCK_TIMEOUT_S = 30.0
FILLERS = 2  # threads that rebuild a database: DuckDB works while another reads

T = TypeVar("T")
Reader = Callable[[Path], RunTexts | None]
_SANDBOX = {"enable_external_access": "false", "lock_configuration": "true"}
_DAMAGE = ("not a valid DuckDB database", "Corrupt database", "Could not read enough bytes", "checksum")
_NO_SPACE = ("No space left", "Disk quota exceeded", "File too large")


@dataclass(frozen=True)
class Frames:
    """A store as pandas frames; columns as in docs/store.md. `runs` has a `stale` column, see `Store.runs`."""

    runs: pd.DataFrame
    samples: pd.DataFrame
    latencies: pd.DataFrame


def load(path: str | Path) -> Frames:
    """The runs, samples and latencies of a store. Raises as `Store.query` does, UsageError if there is no such file."""
    if not Path(path).exists():
        raise UsageError(f"no store at {path}; `harness run --method fastv --store {path}` makes one")
    store = Store(path)
    return Frames(store.runs(), store.query("FROM samples ORDER BY ALL"), store.query("FROM latencies ORDER BY ALL"))


def default_store_path() -> Path:
    """results/local.duckdb of the checkout that the working directory lies in, else in the user's data folder."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        project = folder / "pyproject.toml"
        if project.is_file() and tomllib.loads(project.read_text()).get("project", {}).get("name") == DISTRIBUTION:
            return folder / "results" / "local.duckdb"
    return platformdirs.user_data_path(DISTRIBUTION) / "local.duckdb"


class Store:
    """A database and its logs.

    lock_timeout_s: how long a turn may be waited for. tell: receives a sentence whenever something was repaired or
    left out; by default a Python warning, so that nothing is ever mended in silence.
    Every method may raise StoreLocked, DiskFull and EnvironmentProblem (a folder that cannot be written). A database
    that DuckDB refuses is moved to X.duckdb.corrupt-N and rebuilt from the logs, and that is told.
    """

    def __init__(
        self, path: str | Path, *, lock_timeout_s: float = LOCK_TIMEOUT_S, tell: Callable[[str], object] = warnings.warn
    ):
        self.path = Path(path)
        self._lock_timeout_s = lock_timeout_s
        self._tell = tell

    @property
    def log_folder(self) -> Path:
        return self.path.with_suffix(".runs")

    def log_path(self, run_id: str) -> Path:
        return self.log_folder / f"{run_id}.jsonl"

    def ingest(self, log: Path) -> str:
        """Put a run's log into the tables, in one transaction, in place of what they had of it. Gives the run id.

        Raises CorruptLog, and changes nothing then.
        """

        def runs(read: Reader) -> Iterator[RunTexts]:
            run = read(log)
            if run is None:
                raise CorruptLog(f"{log} has no header yet: nothing to take in")
            yield run

        return self._turn(lambda connection: _replace_runs(connection, runs), read_only=False)[0]

    def rebuild(self) -> list[str]:
        """Remake the database from all logs beside it; the old one stays until the new one is whole. Gives run ids.

        A log that cannot be believed is left out, and that is told.
        """
        with self._locked():
            return self._build()

    def query(self, sql: str, params: Sequence[Any] = ()) -> pd.DataFrame:
        """The answer to one read-only statement that can reach no file. Raises UsageError if DuckDB refuses it."""
        return self._turn(lambda connection: connection.execute(sql, params).df(), read_only=True)

    def runs(self) -> pd.DataFrame:
        """One row per run, oldest first.

        stale: the code that gives answers has changed since, and no note in submissions/ beside the store says that
        today's gives the same (`harness verify --reidentify`); None: cannot tell.
        """
        frame = self.query("FROM runs ORDER BY started_at, run_id")
        frame["settings"] = frame["settings"].map(json.loads)
        words = list(zip(frame["method"], frame["model"], frame["benchmark"], strict=True))
        today = {one: current_code(*one) for one in dict.fromkeys(words)}
        noted = _noted_codes(self.path.parent / "submissions")
        frame["stale"] = [
            None if today[one] is None else today[one] not in (code, *noted.get(run_id, ()))
            for one, code, run_id in zip(words, frame["code"], frame["run_id"], strict=True)
        ]
        return frame

    def run(self, run_id: str) -> dict[str, Any]:
        """The row of one run by its id or a beginning of it, NULL as None. Raises UnknownRun."""

        def find(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
            done = connection.execute("FROM runs WHERE starts_with(run_id, ?) ORDER BY run_id", [run_id])
            names = [column[0] for column in done.description]
            return [dict(zip(names, row, strict=True)) for row in done.fetchall()]

        found = self._turn(find, read_only=True)
        if len(found) != 1:
            several = f"{len(found)} runs begin with {run_id!r}; give more of the id"
            raise UnknownRun(several if found else f"no run {run_id!r} in {self.path}; `harness list runs` shows them")
        return {**found[0], "settings": json.loads(found[0]["settings"])}

    def _turn(self, work: Callable[[duckdb.DuckDBPyConnection], T], *, read_only: bool) -> T:
        """Do `work` under the lock; on a damaged database rebuild it and do it again."""
        with self._locked():
            if not self.path.exists():
                self._build()
            try:
                return self._connected(work, read_only)
            except StoreCorrupt as problem:
                aside = set_aside(self.path, "corrupt")
                wal = _wal(self.path)
                if wal.exists():
                    wal.rename(_wal(aside))
                runs = self._build()
                self._tell(f"{problem}; it was moved to {aside} and rebuilt from {len(runs)} logs in {self.log_folder}")
                return self._connected(work, read_only)

    def _connected(self, work: Callable[[duckdb.DuckDBPyConnection], T], read_only: bool) -> T:
        if read_only:
            with _connection(self.path, read_only=True) as connection:
                if is_current(connection):
                    return work(connection)
        with _connection(self.path) as connection:
            migrate(connection)
            if not read_only:
                return work(connection)
        return self._connected(work, read_only)

    def _build(self) -> list[str]:
        fresh = self.path.with_name(self.path.name + ".rebuilding")
        for leftover in (fresh, _wal(fresh)):
            leftover.unlink(missing_ok=True)
        with _connection(fresh) as connection:
            migrate(connection)
            runs, left_out = _fill(connection, sorted(self.log_folder.glob("*.jsonl")))
        for problem in left_out:
            self._tell(f"left out: {problem}")
        _wal(self.path).unlink(missing_ok=True)  # it belongs to the database that goes
        os.replace(fresh, self.path)
        return runs

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(f"{self.path}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=self._lock_timeout_s)
        except Timeout:
            raise StoreLocked(
                f"{self.path} was in use by another process for {self._lock_timeout_s:g} s; wait for it, or end it"
            ) from None
        except OSError as problem:
            raise EnvironmentProblem(f"cannot write beside {self.path}: {problem}; give another --store") from problem
        try:
            yield
        finally:
            lock.release()


@contextmanager
def _connection(path: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """An open database, closed afterwards; DuckDB's complaints come out as ours."""
    try:
        with duckdb.connect(str(path), read_only=read_only, config=_SANDBOX if read_only else {}) as connection:
            yield connection
    except duckdb.Error as problem:
        raise _translated(problem, path, read_only) from problem


def _translated(problem: duckdb.Error, path: Path, read_only: bool) -> Exception:
    words = str(problem)
    if "Could not set lock" in words:
        return StoreLocked(f"{path} is open in another program; close it there and try again")
    if any(word in words for word in _NO_SPACE):
        return DiskFull(f"no space left for {path}; the logs are whole: free some space, then `harness db rebuild`")
    if isinstance(problem, duckdb.InternalException | duckdb.FatalException | duckdb.SerializationException) or any(
        word in words for word in _DAMAGE
    ):
        return StoreCorrupt(f"{path} is damaged ({words.splitlines()[0]})")
    if read_only and isinstance(problem, duckdb.ProgrammingError | duckdb.PermissionException):
        return UsageError(f"the store refused the query: {words}")
    return problem


def _replace_runs(connection: duckdb.DuckDBPyConnection, runs: Callable[[Reader], Iterable[RunTexts]]) -> list[str]:
    """Take in several runs in one transaction, one in memory at a time. Gives their ids.

    Where DuckDB refuses a record, written in an older shape or without sense, all are read again with Python's eyes.
    """
    try:
        return _in_one_go(connection, runs(read_texts))
    except duckdb.InvalidInputException:
        connection.rollback()
        return _in_one_go(connection, runs(_read_carefully))


def _in_one_go(connection: duckdb.DuckDBPyConnection, runs: Iterable[RunTexts]) -> list[str]:
    connection.begin()
    ids = replace_runs(connection, runs)
    connection.commit()
    return ids


def _fill(connection: duckdb.DuckDBPyConnection, logs: Sequence[Path]) -> tuple[list[str], list[CorruptLog]]:
    """Take logs into an empty database, side by side. Gives their run ids, and why others were left out."""
    left_out: dict[Path, CorruptLog] = {}

    def fill(first: int) -> list[str]:
        with connection.cursor() as cursor:  # closed: one that stays open would keep the last rows out of the file
            return _replace_runs(cursor, partial(_readable, logs[first::FILLERS], left_out))

    with ThreadPoolExecutor(FILLERS) as fillers:
        runs = [run_id for part in fillers.map(fill, range(FILLERS)) for run_id in part]
    return sorted(runs), [left_out[log] for log in sorted(left_out)]


def _readable(logs: Iterable[Path], left_out: dict[Path, CorruptLog], read: Reader) -> Iterator[RunTexts]:
    """The logs that can be believed; why the others cannot goes into `left_out`."""
    for log in logs:
        try:
            run = read(log)
            if run is not None and run.spec.run_id != log.stem:
                raise CorruptLog(f"{log} belongs to run {run.spec.run_id}; a copy of a log has no place here")
        except CorruptLog as problem:
            left_out[log] = problem
            continue
        if run is not None:
            yield run


def _read_carefully(log: Path) -> RunTexts | None:
    contents = read_log(log)
    return contents and texts_of(contents)


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _noted_codes(submissions: Path) -> dict[str, set[str]]:
    """Run id -> code identities that gave its answers again, by the names of the notes: BATCH/RUN.CODE.code.json."""
    found: dict[str, set[str]] = {}
    for path in submissions.glob("*/*.code.json"):
        run_id, code, *_ = path.name.split(".")
        found.setdefault(run_id, set()).add(code)
    return found
