"""A user's own benchmark: a JSONL, TSV or parquet file, or a folder with `questions.*` and perhaps `benchmark.json`.

Columns: `question`, asked as it stands; `answer`, a text or a list of accepted texts; `image`, a path from the file's
folder or base64, or `images`, a list of them. Where wanted: `choices`, a list (or `A`, `B`, `C`, `D`), then the answer
is a letter; `id`; `category`; `cluster`, what shares an image or a story (default: the image).
`benchmark.json` may give `title`, `licence`, `max_new_tokens` and `rule`, one of RULES.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from harness.benchmarks.base import Benchmark
from harness.benchmarks.images import decode, decode_cell
from harness.benchmarks.prompts import LETTER, asked, options, present
from harness.benchmarks.scoring.documents import anls, contains_answer, relaxed
from harness.benchmarks.scoring.groups import mean, unparsed
from harness.benchmarks.scoring.letters import by_place, chooses
from harness.benchmarks.scoring.rule import Rule, Scored
from harness.benchmarks.scoring.text import any_exact, majority_share
from harness.benchmarks.scoring.vqa import evalai, soft_accuracy
from harness.benchmarks.scoring.yes_no import NO, YES, among_words, says
from harness.records.errors import CorruptBenchmark, UndecodableImage, UnknownBenchmark, UsageError
from harness.records.records import Record, Sample

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


MAX_NEW_TOKENS = 32
PATH_LENGTH = 255  # an image's text up to this length is a path, a longer one base64


def fitting(prediction: str, sample: Sample) -> float | None:
    """The rule that fits the question: by the letter, yes or no, or equal text."""
    if sample.choices:
        return chooses(by_place)(prediction, sample)
    if sample.answer.lower() in (YES, NO):
        return says(among_words)(prediction, sample)
    return any_exact(prediction, sample)


RULES: Mapping[str, Rule] = {
    "fitting": fitting,
    "exact_match": any_exact,
    "letter": chooses(by_place),
    "yes_no": says(among_words),
    "contains": contains_answer,
    "relaxed": relaxed,
    "anls": anls,
    "soft_accuracy": soft_accuracy(evalai),
}


@dataclass(frozen=True)
class OwnBenchmark(Benchmark):
    """A user's benchmark. A sample's images are paths from `folder`, or base64 text."""

    folder: Path
    rule: str

    def load_image(self, sample: Sample, index: int) -> Image:
        source = sample.images[index]
        if len(source) > PATH_LENGTH:
            return decode_cell(source, f"image {index} of {sample.id}")
        return decode(self.folder / source, source)

    def prompt(self, sample: Sample) -> str:
        return sample.question

    def score(self, prediction: str, sample: Sample) -> float:
        return RULES[self.rule](prediction, sample) or 0.0

    def metrics(self, records: Iterable[Record]) -> dict[str, float]:
        samples = {sample.id: sample for sample in self.samples}
        rows = []
        for record in records:
            sample = samples[record.sample_id]
            score = None if record.error else RULES[self.rule](record.prediction, sample)
            rows.append(Scored(sample, record.prediction, score))
        return {f"{self.rule}_accuracy": mean(rows), "unparsed_ratio": unparsed(rows)}


def open_own(path: Path) -> OwnBenchmark:
    """A user's benchmark. Raises UnknownBenchmark without a file, CorruptBenchmark naming the row that is wrong."""
    file, facts = _found(path), _facts(path)
    samples = tuple(sample_of(row, number) for number, row in enumerate(read_rows(file), 1))
    if not samples:
        raise CorruptBenchmark(f"{file} has no rows; give at least one question")
    twice = _repeated(sample.id for sample in samples)
    if twice is not None:
        raise CorruptBenchmark(f"{file} has the id {twice!r} twice; ids tell answers apart")
    return OwnBenchmark(
        name=path.resolve().name,
        title=facts.get("title", path.resolve().name),
        revision=_revision(file, facts, samples),
        licence=facts.get("licence", ""),
        max_new_tokens=facts.get("max_new_tokens", MAX_NEW_TOKENS),
        samples=samples,
        chance=majority_share(samples),
        folder=file.parent,
        rule=facts.get("rule", "fitting"),
    )


def check(path: Path) -> list[str]:
    """What is wrong with a user's benchmark, one line each; [] when it can be run. Every image is decoded.

    Raises UnknownBenchmark and CorruptBenchmark as `open_own` does.
    """
    opened = open_own(path)
    problems = []
    for sample in opened.samples:
        try:
            opened.load_images(sample)
        except UndecodableImage as error:
            problems.append(f"{sample.id}: {error}")
    return problems


def sample_of(row: Mapping[str, Any], number: int) -> Sample:
    """One row as a sample; number: its place, 1 first. Raises CorruptBenchmark, naming the place."""
    images, choices = _images(row), _choices(row)
    accepted = row.get("answer")
    answers = tuple(map(_text, accepted)) if isinstance(accepted, list) else (_text(accepted),)
    question = _text(row.get("question"))
    needs = {"question": question, "answer": answers[0] if answers else "", "image": images}
    missing = [name for name, value in needs.items() if not value]
    if missing:
        raise CorruptBenchmark(f"row {number} has no {', no '.join(missing)}; its columns are {', '.join(row)}")
    if choices and answers[0].upper() not in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(choices)]:
        raise CorruptBenchmark(
            f"row {number} has choices and the answer {answers[0]!r}; give the letter of the right one"
        )
    return Sample(
        id=_text(row.get("id")) or str(number),
        cluster=_text(row.get("cluster")) or hashlib.sha256(images[0].encode()).hexdigest()[:16],
        category=_text(row.get("category")) or "all",
        question=asked(question, options(choices), LETTER) if choices else question,
        answer=answers[0],
        images=images,
        choices=choices,
        answers=answers,
    )


def _images(row: Mapping[str, Any]) -> tuple[str, ...]:
    listed = row.get("images") or [row.get("image")]
    return tuple(str(image) for image in listed if image)


def _choices(row: Mapping[str, Any]) -> tuple[str, ...]:
    listed = row.get("choices") or [row[letter] for letter in "ABCD" if present(row.get(letter))]
    return tuple(map(str, listed))


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _found(path: Path) -> Path:
    """The file of the questions: `path` itself, or the one in that folder."""
    files = [path] if path.is_file() else [path / f"questions{ending}" for ending in ENDINGS]
    found = [file for file in files if file.is_file()]
    if not found:
        raise UnknownBenchmark(f"no benchmark at {path}; give a file or a folder with questions{'|'.join(ENDINGS)}")
    return found[0]


def _facts(path: Path) -> dict[str, Any]:
    file = path / "benchmark.json"
    if not file.is_file():
        return {}
    try:
        facts = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptBenchmark(f"{file} is no JSON: {error}") from error
    kinds = {"title": str, "licence": str, "rule": str, "max_new_tokens": int}
    for key, value in facts.items() if isinstance(facts, dict) else [("", facts)]:
        if not isinstance(value, kinds.get(key, ())):
            raise CorruptBenchmark(f"{file}: {key!r} is {value!r}; it may give title, licence, rule and max_new_tokens")
    if facts.get("rule", "fitting") not in RULES:
        raise CorruptBenchmark(f"{file} asks for the rule {facts['rule']!r}; there are {', '.join(RULES)}")
    return facts


def _repeated(ids: Iterable[str]) -> str | None:
    seen: set[str] = set()
    return next((one for one in ids if one in seen or seen.add(one)), None)


def _revision(file: Path, facts: Mapping[str, Any], samples: Iterable[Sample]) -> str:
    """sha256 over the questions, the facts and every image file; a missing image counts as empty."""
    total = hashlib.sha256(file.read_bytes() + json.dumps(facts, sort_keys=True).encode())
    for image in sorted({image for sample in samples for image in sample.images if len(image) <= PATH_LENGTH}):
        path = file.parent / image
        total.update(image.encode() + b"\0" + (path.read_bytes() if path.is_file() else b"") + b"\0")
    return total.hexdigest()
