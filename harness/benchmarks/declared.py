"""A declared benchmark, opened: rows become samples, cells become images, answers become scores."""

from __future__ import annotations

import hashlib
import inspect
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from harness.benchmarks.base import Benchmark
from harness.benchmarks.declaration import NUMBER, PICTURE, Declaration, Hub, Row, Tsv
from harness.benchmarks.images import decode_cell, image_size
from harness.benchmarks.scoring.groups import unparsed
from harness.benchmarks.scoring.rule import Metric, Rule, Scored
from harness.benchmarks.scoring.text import majority_share
from harness.benchmarks.tables import QuestionTable, open_hub, open_tsv
from harness.records.errors import BenchmarkUnavailable, CorruptBenchmark, UndecodableImage
from harness.records.records import Record, Sample

SEED = 20260  # of the order, never of a run: every method, control and seed answers the same first N


def stratified(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """All samples in a seeded order whose every beginning has the categories in their proportions.

    Rows that a metric judges together follow one another, so `--limit` cuts at most the last group. A sample without
    groups is shuffled on its own.
    """
    strata: dict[str, list[list[Sample]]] = defaultdict(list)
    for together in _groups(samples):
        strata[together[0].category].append(together)
    placed = []
    for category, groups in sorted(strata.items()):
        shuffle = random.Random(f"{SEED}:{category}")
        shuffle.shuffle(groups)
        offset = shuffle.random()
        placed += [((rank + offset) / len(groups), category, rank, group) for rank, group in enumerate(groups)]
    placed.sort(key=lambda one: one[:3])
    return tuple(sample for *_, group in placed for sample in group)


def _groups(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Samples that share their first group; one that has none stands alone."""
    found: dict[object, list[Sample]] = {}
    for number, sample in enumerate(samples):
        key = next(iter(sample.groups.items()), number)
        found.setdefault((sample.category, key), []).append(sample)
    return list(found.values())


REFERENCE_LENGTH = 64  # a base64 cell this short is the index of the row that holds the image


@dataclass(frozen=True)
class DeclaredBenchmark(Benchmark):
    """A published benchmark. A sample's images are "row/column" or "row/column/place" in `pictures`."""

    declaration: Declaration
    pictures: QuestionTable
    rows_by_index: Mapping[str, int]  # TSV only: many rows may share the image of one

    def load_image(self, sample: Sample, index: int) -> Image:
        row, column, *place = sample.images[index].split("/")
        name = f"{self.pictures.words}, row {row}, {column}"
        cell = _resolved(self.pictures, int(row), column, self.rows_by_index)
        if place:
            if not isinstance(cell, list) or len(cell) <= int(place[0]):
                raise UndecodableImage(f"{name} has no image {place[0]}")
            cell = cell[int(place[0])]
        return decode_cell(cell, name)

    def prompt(self, sample: Sample) -> str:
        return sample.question

    def score(self, prediction: str, sample: Sample) -> float:
        return self.declaration.rule(prediction, sample) or 0.0

    def metrics(self, records: Iterable[Record]) -> dict[str, float]:
        samples = {sample.id: sample for sample in self.samples}
        answered = [(samples[record.sample_id], record) for record in records]
        return {
            metric.name: metric.aggregate(_judged(answered, metric.rule or self.declaration.rule))
            for metric in (*self.declaration.metrics, Metric("unparsed_ratio", unparsed))
        }


def _resolved(table: QuestionTable, row: int, column: str, rows_by_index: Mapping[str, int]) -> Any:
    """A cell, or the one that it refers to by the index of its row, as TSV files do with shared images."""
    cell = table.rows.cell(row, column)
    if isinstance(cell, str) and len(cell) <= REFERENCE_LENGTH and cell in rows_by_index:
        return table.rows.cell(rows_by_index[cell], column)
    return cell


def _judged(answered: list[tuple[Sample, Record]], rule: Rule) -> list[Scored]:
    return [
        Scored(sample, record.prediction, None if record.error else rule(record.prediction, sample))
        for sample, record in answered
    ]


def open_declared(declaration: Declaration, data_dir: Path | None = None, stream: bool = False) -> DeclaredBenchmark:
    """Open a benchmark: from `data_dir`/NAME or /OWNER/NAME (hub layout, or the TSV file), or from the hub's cache.

    stream: read hub splits in place and store nothing; a TSV file is still read whole, as its md5 is the whole file's.
    Raises BenchmarkUnavailable when it is neither there nor reachable, CorruptBenchmark when it is not what the
    declaration says: other columns, no rows, answers outside its answer space.
    """
    folder = _folder(declaration, data_dir)
    table = _open(declaration.source, folder, stream)
    pictures = open_hub(declaration.pictures, folder, stream) if declaration.pictures else table
    if data_dir is None:
        _compare_rows(declaration, len(table.rows))
    rows_by_index = {} if isinstance(declaration.source, Hub) else _by_index(table)
    samples = stratified(_samples(declaration, table, pictures, rows_by_index))
    return DeclaredBenchmark(
        name=declaration.name,
        title=declaration.title,
        revision=f"{table.revision}+{_wording(declaration)}",
        licence=declaration.licence,
        max_new_tokens=declaration.max_new_tokens,
        samples=samples,
        chance=majority_share(samples) if declaration.answers.allowed else {"all": declaration.chance},
        declaration=declaration,
        pictures=pictures,
        rows_by_index=rows_by_index,
    )


def _folder(declaration: Declaration, data_dir: Path | None) -> Path | None:
    if data_dir is None:
        return None
    places = (declaration.name, *(declaration.source.ids if isinstance(declaration.source, Hub) else ()))
    found = [data_dir / place for place in places if (data_dir / place).is_dir()]
    if not found:
        raise BenchmarkUnavailable(f"{data_dir} has no folder {places[0]}; put {declaration.source.words} there")
    return found[0]


def _open(source: Hub | Tsv, folder: Path | None, stream: bool) -> QuestionTable:
    if isinstance(source, Hub):
        return open_hub(source, folder, stream)
    file = folder and folder / source.file
    if file is not None and not file.is_file():
        raise BenchmarkUnavailable(f"{folder} has no {source.file}; download it from {source.url}")
    return open_tsv(source, file)


def _samples(
    declaration: Declaration, table: QuestionTable, pictures: QuestionTable, rows_by_index: Mapping[str, int]
) -> list[Sample]:
    source = declaration.source
    texts = table.rows.texts(column for column in source.columns if column not in source.images)
    row_of = (
        {row["id"]: number for number, row in enumerate(pictures.rows.texts(["id"]))} if declaration.pictures else {}
    )
    samples = []
    for number, row in enumerate(texts):
        row |= {NUMBER: number}
        if declaration.sized:
            row |= {"size": image_size(table.rows.cell(number, source.images[0]))}
        if rows_by_index:
            row |= {PICTURE: _digest(_resolved(table, number, source.images[0], rows_by_index))}
        held = number if not row_of else _picture(row, row_of, declaration, number)
        samples += [_sample(declaration, one, number, held) for one in declaration.explode(row)]
    return _unique(samples)


def _picture(row: Row, row_of: Mapping[str, int], declaration: Declaration, number: int) -> int:
    key = row[declaration.joined]
    if key not in row_of:
        raise CorruptBenchmark(f"{declaration.name}, row {number}: no image with id {key!r}; download the images again")
    return row_of[key]


def _sample(declaration: Declaration, row: Row, number: int, held: int) -> Sample:
    try:
        sample = declaration.read(row)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise CorruptBenchmark(
            f"{declaration.name}, row {number} is not as declared: {error!r}; the data set was changed, or is torn"
        ) from error
    if not declaration.answers.holds(sample.answer):
        raise CorruptBenchmark(
            f"{declaration.name}, row {number} has the answer {sample.answer!r}, expected {declaration.answers.words}; "
            "is this a split whose answers are hidden?"
        )
    return replace(sample, images=tuple(f"{held}/{image}" for image in sample.images))


def _digest(cell: str | None) -> str:
    return hashlib.sha256((cell or "").encode()).hexdigest()[:16]


def _unique(samples: list[Sample]) -> list[Sample]:
    """The samples with ids that differ: the second "7" becomes "7~2"."""
    seen: Counter[str] = Counter()
    found = []
    for sample in samples:
        seen[sample.id] += 1
        found.append(sample if seen[sample.id] == 1 else replace(sample, id=f"{sample.id}~{seen[sample.id]}"))
    return found


def _by_index(table: QuestionTable) -> dict[str, int]:
    return {row["index"]: number for number, row in enumerate(table.rows.texts(["index"]))}


def _compare_rows(declaration: Declaration, found: int) -> None:
    expected = declaration.source.rows
    if expected is not None and found != expected:
        warnings.warn(
            f"{declaration.name} has {found} rows, its card said {expected}; scores may not compare with papers'",
            stacklevel=3,
        )


def _wording(declaration: Declaration) -> str:
    """8 hex digits over the file of a declaration: its prompts are part of what was asked."""
    source = Path(inspect.getsourcefile(declaration.read) or "")
    return hashlib.sha256(source.read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:8]
