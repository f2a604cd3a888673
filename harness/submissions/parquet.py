"""Rows in a Parquet file: written in the same bytes every time, read behind caps and in a sandbox.

A file from a stranger is looked at in steps, each cheaper than what it guards: its size, its first and last bytes,
its footer (rows, columns, types, claimed bytes), then lengths of its texts by a streaming query, then the rows. The
connection that reads can open that one file and nothing else, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records.errors import HarnessError
from harness.submissions.rows import COLUMNS, NULLABLE, frame_of

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

MAX_FILE_BYTES = 16 * 2**20
MAX_ROWS = 4_000_000
MAX_UNPACKED_BYTES = 2**30  # as the footer claims
MAX_TEXT_BYTES = 2**29  # all texts of the file, once dictionaries are spelled out
MAX_TEXT_LENGTH = 8192  # one prediction
MEMORY = "1GB"
_MAGIC = b"PAR1"
_TEXTS = [name for name, kind in COLUMNS.items() if kind == "VARCHAR"]


class BadRows(HarnessError):
    """A samples file that is not what it should be; the message says what is wrong with it."""


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as zstd Parquet. The same rows give the same bytes with the same DuckDB."""
    import duckdb

    quoted = str(path).replace("'", "''")
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        connection.register("rows_to_write", frame_of(rows))
        casts = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in COLUMNS.items())
        connection.execute(
            f"COPY (SELECT {casts} FROM rows_to_write) TO '{quoted}' "
            "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 15)"
        )


def read_rows(path: Path, columns: Sequence[str] = tuple(COLUMNS), run_ids: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of a file, of some runs where these are named, in the order in which they lie. Raises BadRows."""
    import duckdb

    _check_outside(path)
    try:
        with _sandbox(path) as connection:
            _check_footer(connection, path)
            _check_texts(connection, path)
            names = ", ".join(f'"{name}"' for name in columns)
            where, named = _only(run_ids)
            return connection.execute(f"SELECT {names} FROM {_SOURCE}{where}", [str(path), *named]).df()
    except duckdb.Error as problem:
        raise BadRows(f"{path.name} cannot be read as Parquet: {str(problem).splitlines()[0][:200]}") from problem


def stream_runs(path: Path, run_ids: Sequence[str] = ()) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run by run, all or those named: its id and its rows as plain values, None for NULL. Raises BadRows."""
    import duckdb

    _check_outside(path)
    try:
        with _sandbox(path) as connection:
            _check_footer(connection, path)
            _check_texts(connection, path)
            where, named = _only(run_ids)
            found = connection.execute(f"FROM {_SOURCE}{where} ORDER BY run_id, sample_id", [str(path), *named])
            rows = (dict(zip(COLUMNS, row, strict=True)) for row in _fetched(found))
            for run_id, own in groupby(rows, key=lambda row: row["run_id"]):
                yield run_id, list(own)
    except duckdb.Error as problem:
        raise BadRows(f"{path.name} cannot be read as Parquet: {str(problem).splitlines()[0][:200]}") from problem


def _only(run_ids: Sequence[str]) -> tuple[str, list[list[str]]]:
    """The words and the parameter that leave some runs only."""
    return (" WHERE list_contains(?, run_id)", [list(run_ids)]) if run_ids else ("", [])


def _fetched(found: duckdb.DuckDBPyConnection) -> Iterator[tuple]:
    while rows := found.fetchmany(20_000):
        yield from rows


_SOURCE = "read_parquet(?, hive_partitioning = false)"


def _check_outside(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        raise BadRows(f"{path.name} is missing, or is no plain file")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise BadRows(f"{path.name} has {size} bytes, at most {MAX_FILE_BYTES} are taken; submit fewer runs at once")
    with path.open("rb") as file:
        first = file.read(4)
        file.seek(max(size - 4, 0))
        last = file.read(4)
    if size < 12 or first != _MAGIC or last != _MAGIC:
        raise BadRows(f"{path.name} is no Parquet file: it should begin and end with PAR1")


def _sandbox(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that can open one file."""
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": MEMORY})
    quoted = str(path).replace("'", "''")
    connection.execute(f"SET allowed_paths = ['{quoted}']")
    connection.execute("SET temp_directory = ''")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _check_footer(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    named = [str(path)]
    (rows,) = connection.execute("SELECT num_rows FROM parquet_file_metadata(?)", named).fetchall()[0]
    if rows > MAX_ROWS:
        raise BadRows(f"{path.name} has {rows} rows, at most {MAX_ROWS} are taken; submit fewer runs at once")
    sizes = "SELECT coalesce(sum(total_uncompressed_size), 0) FROM parquet_metadata(?)"
    ((unpacked,),) = connection.execute(sizes, named).fetchall()
    if unpacked > MAX_UNPACKED_BYTES:
        raise BadRows(f"{path.name} unpacks to {unpacked} bytes, at most {MAX_UNPACKED_BYTES} are taken")
    found = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {_SOURCE}", named).fetchall()}
    if found != COLUMNS:
        wrong = sorted(name for name in found.keys() | COLUMNS.keys() if found.get(name) != COLUMNS.get(name))
        told = ", ".join(f"{name[:40]} is {found.get(name, 'missing')[:40]}" for name in wrong[:4])
        raise BadRows(f"{path.name} has other columns than a submission: {told}")


def _check_texts(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    totals = " + ".join(f"coalesce(sum(strlen({name})), 0)" for name in _TEXTS)
    longest = f"greatest({', '.join(f'coalesce(max(strlen({name})), 0)' for name in _TEXTS)})"
    gaps = " + ".join(f"count(*) - count({name})" for name in COLUMNS if name not in NULLABLE)
    asked = f"SELECT {totals}, {longest}, {gaps} FROM {_SOURCE}"
    ((total, longest_one, missing),) = connection.execute(asked, [str(path)]).fetchall()
    if longest_one > MAX_TEXT_LENGTH or total > MAX_TEXT_BYTES:
        raise BadRows(
            f"{path.name} holds {total} bytes of text, the longest {longest_one}; at most {MAX_TEXT_BYTES} and "
            f"{MAX_TEXT_LENGTH} are taken"
        )
    if missing:
        raise BadRows(f"{path.name} has {missing} empty cells in columns that every row needs")
