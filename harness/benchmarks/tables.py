"""Tables of rows through `datasets`: hub splits, and TSV files. Images stay undecoded until they are asked for.

`datasets` keeps what it downloads in its own cache and shows the progress, unless a split is streamed. It is imported
here, inside functions.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.benchmarks.declaration import Hub, Tsv
from harness.records.errors import BenchmarkUnavailable, CorruptBenchmark

if TYPE_CHECKING:
    from datasets import Dataset


# Streaming stores nothing: the columns of texts are read once, an image by the row group that holds it, so that a few
# hundred questions of a data set of many gigabytes cost a part of it.
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


class Rows(Protocol):
    """The rows of a split, wherever they lie."""

    @property
    def column_names(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def texts(self, columns: Iterable[str]) -> list[dict[str, Any]]:
        """Those columns of every row."""
        ...

    def cell(self, row: int, column: str) -> Any:
        """One cell."""
        ...


@dataclass(frozen=True)
class CachedRows:
    """Rows in the cache of `datasets`, in arrow format: cells come as they are stored."""

    rows: Dataset

    @property
    def column_names(self) -> list[str]:
        return self.rows.column_names

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, columns: Iterable[str]) -> list[dict[str, Any]]:
        return self.rows.select_columns(list(columns))[:].to_pylist()

    def cell(self, row: int, column: str) -> Any:
        return self.rows[row][column][0].as_py()


@dataclass(frozen=True)
class QuestionTable:
    """An open table. revision: what pins its content: "owner/name@commit", "md5:..." or "files:..."."""

    rows: Rows
    revision: str
    words: str


def open_hub(source: Hub, folder: Path | None, streamed: bool = False) -> QuestionTable:
    """A split of a hub data set: from `folder`, which has the hub's layout, or from the hub and its cache.

    streamed: read it in place and store nothing. Rows and revision are the same either way. Raises
    BenchmarkUnavailable, or CorruptBenchmark when columns are missing or there is no row.
    """
    if folder is not None:
        revision = files_revision(sorted(folder.rglob("*.parquet")))
        with _explained(source, folder):
            rows, _ = _open(str(folder), replace(source, revision=None), streamed, _cache(revision))
        return _checked(rows, source, revision)
    unavailable = []
    for name in source.ids:
        try:
            with _explained(source, None):
                rows, commit = _open(name, source, streamed)
        except BenchmarkUnavailable as error:
            unavailable.append(error)
        else:
            return _checked(rows, source, f"{name}@{commit}")
    raise unavailable[0]


def open_tsv(source: Tsv, file: Path | None) -> QuestionTable:
    """A VLMEvalKit table: `file`, or the published one, downloaded once. Raises as `open_hub` and for a wrong md5.

    Beside a file that is meant to differ, FILE.md5 holds the sum it has.
    """
    from datasets import DownloadManager, Features, Value, load_dataset

    if file is None:
        with _explained(source, None):
            file = Path(DownloadManager().download(source.url))
    md5 = file_md5(file)
    beside = file.with_name(file.name + ".md5")
    expected = beside.read_text().split()[0] if beside.is_file() else source.md5
    if expected is not None and md5 != expected:
        raise CorruptBenchmark(f"{file} has md5 {md5}, expected {expected}; it is torn or changed: download it again")
    header = _header(file)
    check_columns(header, source)
    with _explained(source, file):
        features = Features({column: Value("string") for column in header})
        rows = load_dataset(
            "csv", data_files=str(file), split="train", sep="\t", keep_default_na=False, features=features,
            cache_dir=_cache(f"md5:{md5}"),
        )  # fmt: skip
    return _checked(CachedRows(rows.with_format("arrow")), source, f"md5:{md5}")


def check_columns(found: Iterable[str], source: Hub | Tsv) -> None:
    """Raises CorruptBenchmark unless all columns that the declaration reads are there."""
    missing = [column for column in source.columns if column not in found]
    if missing:
        raise CorruptBenchmark(
            f"{source.words} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has "
            f"{', '.join(found)}. The data set was changed: pin an older revision, or report it"
        )


def files_revision(paths: Iterable[Path]) -> str:
    """sha256 over files, names and contents."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return f"files:{total.hexdigest()[:32]}"


def file_md5(path: Path) -> str:
    """md5 of a file, in hex; it need not fit into memory."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def _open(path: str, source: Hub, streamed: bool, cache: str | None = None) -> tuple[Rows, str]:
    """A split and its commit (of a folder: a hash). path: a hub id, or a folder with the hub's layout."""
    from datasets import load_dataset_builder

    builder = load_dataset_builder(path, name=source.config, revision=source.revision, cache_dir=cache)
    if not str(builder.hash).startswith(source.revision or ""):  # without a network the cache gives what it has
        raise FileNotFoundError(f"the cache holds {builder.hash}, not {source.revision}")
    if streamed and builder.config.data_files is not None:  # None: without a network, what is cached
        return StreamedRows(_parquet(path, builder.config.data_files, source.split)), builder.hash
    builder.download_and_prepare()
    return CachedRows(builder.as_dataset(split=source.split).with_format("arrow")), builder.hash


def _parquet(path: str, splits: Mapping[Any, Iterable[Any]], split: str) -> list[str]:
    """The addresses of a split's files. Raises ValueError when there are none, or others than parquet."""
    files = [str(file) for file in splits.get(split, ())]
    if not files:
        raise ValueError(f'Unknown split "{split}"; it has {", ".join(map(str, splits)) or "no files"}')
    if not all(file.endswith(".parquet") for file in files):
        raise ValueError(f"{path} is not kept as parquet and cannot be streamed; leave out --stream")
    return files


def _cache(revision: str) -> str:
    """A cache of its own for each content: `datasets` tells local folders apart by their names alone."""
    import datasets

    return str(Path(datasets.config.HF_DATASETS_CACHE) / "harness" / revision.replace(":", "-"))


@contextmanager
def _explained(source: Hub | Tsv, given: Path | None) -> Iterator[None]:
    """Turns what `datasets` raises into words: unreachable is the machine's problem, unreadable is the data's."""
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    try:
        yield
    except (DatasetGenerationError, ValueError) as error:
        cause = error.__cause__ or error
        if given is None and isinstance(error, ValueError):
            raise CorruptBenchmark(f"{source.words}: {_line(cause)}; the data set was changed on the hub") from error
        raise CorruptBenchmark(f"cannot read {source.words} in {given or 'the cache'}: {_line(cause)}") from error
    except (DatasetNotFoundError, OSError) as error:
        raise BenchmarkUnavailable(_unavailable(source, given, error)) from error


def _unavailable(source: Hub | Tsv, given: Path | None, error: Exception) -> str:
    if given is not None:
        return f"no data of {source.words} in {given}: {_line(error)}"
    fetch = (
        f"hf download --repo-type dataset {source.ids[0]} --local-dir DIR/NAME"
        if isinstance(source, Hub)
        else f"curl --create-dirs -o DIR/NAME/{source.file} {source.url}"
    )
    return (
        f"{source.words} is not in the local cache and was not reached ({_line(error)}). Where there is a network run "
        f"`{fetch}` with NAME = the benchmark's name here, bring DIR, and give --data-dir DIR"
    )


def _checked(rows: Rows, source: Hub | Tsv, revision: str) -> QuestionTable:
    check_columns(rows.column_names, source)
    if not len(rows):
        raise CorruptBenchmark(f"{source.words} has no rows; download it again")
    return QuestionTable(rows, revision, source.words)


def _header(file: Path) -> list[str]:
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        return [column.strip('"') for column in opened.readline().rstrip("\r\n").split("\t")]


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
