"""Tables of rows through `datasets`: hub splits, and TSV files. Images stay undecoded until they are asked for.

`datasets` keeps what it downloads in its own cache and shows the progress. It is imported here, inside functions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.benchmarks.declaration import Hub, Tsv
from harness.errors import BenchmarkUnavailable, CorruptBenchmark

if TYPE_CHECKING:
    from datasets import Dataset

_SHA = re.compile(r"@([0-9a-f]{40})/")


@dataclass(frozen=True)
class Table:
    """An open table. revision: what pins its content: "owner/name@commit", "md5:..." or "files:..."."""

    rows: Dataset  # in arrow format: cells come as they are stored
    revision: str
    words: str

    def texts(self, columns: Iterable[str]) -> list[dict[str, Any]]:
        """Those columns of every row."""
        return self.rows.select_columns(list(columns))[:].to_pylist()

    def cell(self, row: int, column: str) -> Any:
        """One cell."""
        return self.rows[row][column][0].as_py()


def open_hub(source: Hub, folder: Path | None) -> Table:
    """A split of a hub data set: from `folder`, which has the hub's layout, or from the hub and its cache.

    Raises BenchmarkUnavailable, or CorruptBenchmark when columns are missing or there is no row.
    """
    if folder is not None:
        revision = files_revision(sorted(folder.rglob("*.parquet")))
        with _explained(source, folder):
            rows = _load(str(folder), name=source.config, split=source.split, cache_dir=_cache(revision))
        return _checked(rows, source, revision)
    for name in source.ids:
        rows = _from_hub(source, name, last=name == source.ids[-1])
        if rows is not None:
            commit = source.revision or _commit(rows.info.download_checksums) or "unknown"
            return _checked(rows, source, f"{name}@{commit}")
    raise AssertionError("a hub source has at least one id")


def open_tsv(source: Tsv, file: Path | None) -> Table:
    """A VLMEvalKit table: `file`, or the published one, downloaded once. Raises as `open_hub` and for a wrong md5.

    Beside a file that is meant to differ, FILE.md5 holds the sum it has.
    """
    from datasets import DownloadManager, Features, Value

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
        rows = _load(
            "csv", data_files=str(file), split="train", sep="\t", keep_default_na=False, features=features,
            cache_dir=_cache(f"md5:{md5}"),
        )  # fmt: skip
    return _checked(rows, source, f"md5:{md5}")


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


def _from_hub(source: Hub, name: str, last: bool) -> Dataset | None:
    """The split under one of its ids; None where that id is gone and another is left to try."""
    from datasets.exceptions import DatasetNotFoundError

    try:
        with _explained(source, None):
            return _load(name, name=source.config, split=source.split, revision=source.revision)
    except BenchmarkUnavailable as error:
        if isinstance(error.__cause__, DatasetNotFoundError) and not last:
            return None
        raise


def _load(*words: Any, **settings: Any) -> Dataset:
    from datasets import load_dataset

    return load_dataset(*words, **settings).with_format("arrow")


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


def _checked(rows: Dataset, source: Hub | Tsv, revision: str) -> Table:
    check_columns(rows.column_names, source)
    if not len(rows):
        raise CorruptBenchmark(f"{source.words} has no rows; download it again")
    return Table(rows, revision, source.words)


def _header(file: Path) -> list[str]:
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        return [column.strip('"') for column in opened.readline().rstrip("\r\n").split("\t")]


def _commit(checksums: Mapping[str, Any] | None) -> str | None:
    """The commit in the addresses that were downloaded."""
    return next((found[1] for url in checksums or () if (found := _SHA.search(str(url)))), None)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
