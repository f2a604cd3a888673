"""The parquet files of a split read in place: the columns of texts once, an image when it is asked for.

Nothing is stored. What is fetched for one image is the row group that holds it, so a few hundred questions of a data
set of many gigabytes cost a part of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from typing import Any

from harness.records.errors import BenchmarkUnavailable, CorruptBenchmark


class StreamedRows:
    """Rows of parquet files, in their order. files: paths, or addresses that `fsspec` opens, at least one.

    Raises, here and later, CorruptBenchmark when a file is torn and BenchmarkUnavailable when it cannot be fetched,
    which says nothing about the row.
    """

    def __init__(self, files: Sequence[str]):
        with _fetching():
            self._files = [_opened(file) for file in files]
        groups = [
            (file, group, file.metadata.row_group(group).num_rows)
            for file in self._files
            for group in range(file.num_row_groups)
        ]
        self._groups = [group[:2] for group in groups]
        self._ends = list(accumulate(rows for *_, rows in groups))  # of each group, in rows of the split
        self._read = lru_cache(maxsize=1)(self._read)  # neighbours share a group

    @property
    def column_names(self) -> list[str]:
        """The columns of the split."""
        return self._files[0].schema_arrow.names

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def texts(self, columns: Iterable[str]) -> list[dict[str, Any]]:
        """Those columns of every row."""
        wanted = list(columns)
        with _fetching():
            return [row for file in self._files for row in file.read(columns=wanted).to_pylist()]

    def cell(self, row: int, column: str) -> Any:
        """One cell."""
        group = bisect_right(self._ends, row)
        start = self._ends[group - 1] if group else 0
        with _fetching():
            return self._read(group, column)[row - start].as_py()

    def _read(self, group: int, column: str) -> Any:
        file, place = self._groups[group]
        return file.read_row_group(place, columns=[column]).column(0)


def _opened(file: str) -> Any:
    """Reads what it is asked for and no more: a client that reads ahead would fetch the images between the texts."""
    from fsspec.core import url_to_fs
    from pyarrow.parquet import ParquetFile

    system, path = url_to_fs(file)
    return ParquetFile(system.open(path, "rb", cache_type="none"), pre_buffer=True)


@contextmanager
def _fetching() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise CorruptBenchmark(
            f"a parquet file is torn ({error}); it has to be uploaded or downloaded again"
        ) from error
    except Exception as error:  # the client's errors have no base of their own
        raise BenchmarkUnavailable(f"a file cannot be fetched ({error}); give the same command again") from error
