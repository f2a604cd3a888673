"""The rows of a user's file, whatever its format: JSONL, TSV with a header line, parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.records.errors import CorruptBenchmark, UsageError

ENDINGS = (".jsonl", ".tsv", ".parquet")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a file. Raises CorruptBenchmark, naming the line; UsageError for another kind of file."""
    readers = {".jsonl": _jsonl, ".tsv": _tsv, ".parquet": _parquet}
    if file.suffix not in readers:
        raise UsageError(f"{file} is no benchmark; use one of {', '.join(ENDINGS)}")
    try:
        return list(readers[file.suffix](file))
    except UnicodeDecodeError as error:
        raise CorruptBenchmark(f"{file} is not UTF-8: {error}") from error


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorruptBenchmark(f"{file}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise CorruptBenchmark(f"{file}, line {number} is no JSON object; write {{'question': ...}}")
        yield row


def _tsv(file: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # a cell may hold a picture
    with file.open(encoding="utf-8", newline="") as opened:
        for number, row in enumerate(csv.DictReader(opened, delimiter="\t"), 2):
            if None in row or None in row.values():
                raise CorruptBenchmark(f"{file}, line {number} has not as many cells as the header; is the file torn?")
            yield row


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import duckdb

    with duckdb.connect() as connection:
        try:
            found = connection.execute("SELECT * FROM read_parquet(?)", [str(file)])
        except duckdb.Error as error:
            raise CorruptBenchmark(f"{file} is no readable parquet file: {str(error).splitlines()[0]}") from error
        columns = [one[0] for one in found.description]
        yield from (dict(zip(columns, values, strict=True)) for values in found.fetchall())
