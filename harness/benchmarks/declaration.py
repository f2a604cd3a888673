"""What a published benchmark says of itself: where it lies, how a row is asked, by which rule it is scored.

A declaration is data and one function from a row to a sample. `harness/benchmarks/papers/` holds them; a module there
that lists `DECLARATIONS` is found by name, so a new benchmark is one file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.benchmarks.scoring.rule import Metric, Rule
from harness.records.records import Sample

Row = Mapping[str, Any]  # one row of a data set: column -> value, images left out
NUMBER = "row number"  # what a row is given besides its columns: its place in its split, for those that have no id
PICTURE = "picture"  # and in a TSV a hash of its image, which several rows may share


@dataclass(frozen=True)
class Hub:
    """A split of a hub data set. ids: the names it has had, the present one first.

    revision: the commit that is asked for; None = the newest, whose commit is recorded. rows: what its card says,
    None = not known. columns: those that a row needs, `images` among them.
    """

    ids: tuple[str, ...]
    split: str
    columns: tuple[str, ...]
    images: tuple[str, ...] = ("image",)
    config: str | None = None
    revision: str | None = None
    rows: int | None = None

    @property
    def words(self) -> str:
        """For messages: "lmms-lab-encoder/POPE, split test"."""
        return f"{self.ids[0]}, {self.config + ', ' if self.config else ''}split {self.split}"


@dataclass(frozen=True)
class Tsv:
    """A table of VLMEvalKit: one file, images in base64, checked by its md5 (None: none is known)."""

    file: str
    columns: tuple[str, ...]
    md5: str | None = None
    folder: str = "https://opencompass.openxlab.space/utils/VLMEval"
    images: tuple[str, ...] = ("image",)
    rows: int | None = None

    @property
    def url(self) -> str:
        return f"{self.folder}/{self.file}"

    @property
    def words(self) -> str:
        return self.file


@dataclass(frozen=True)
class Answers:
    """What an expected answer may be. allowed: in lower case; empty = anything that is not empty."""

    words: str
    allowed: frozenset[str] = frozenset()

    def holds(self, answer: str) -> bool:
        """Whether an expected answer is one that this benchmark can have."""
        return answer.strip().lower() in self.allowed if self.allowed else bool(answer.strip())


YES_NO = Answers("yes or no", frozenset(("yes", "no")))
LETTER = Answers("a letter", frozenset("abcdefghi"))
TEXT = Answers("text")
BOX = Answers("a box")


@dataclass(frozen=True)
class Declaration:
    """A benchmark as a paper uses it.

    read: a row -> its sample, whose `images` name columns ("image", or "image/0" where a cell is a list).
    rule: how a row's score comes about. metrics: what is reported, the headline first. cluster: the column whose
    equal values share an image or a story. chance: what a guess scores, in [0, 1].
    explode: a row -> the rows it stands for. sized: the row is given "size", its image's (width, height).
    pictures, joined: the images lie in a table of their own, whose `id` is the row's column `joined`.
    seen_in: the tool or paper whose prompt and rule these are.
    """

    name: str
    title: str
    source: Hub | Tsv
    read: Callable[[Row], Sample]
    rule: Rule
    metrics: tuple[Metric, ...]
    answers: Answers
    cluster: str
    chance: float
    max_new_tokens: int = 16
    licence: str = ""
    explode: Callable[[Row], list[Row]] = lambda row: [row]
    sized: bool = False
    pictures: Hub | None = None
    joined: str = ""
    seen_in: str = "lmms-eval 0.7.2"

    def described(self) -> dict[str, Any]:
        """As `harness list benchmarks --json` shows it; nothing is opened."""
        hub = isinstance(self.source, Hub)
        return {
            "name": self.name,
            "title": self.title,
            "ids": list(self.source.ids) if hub else [self.source.url],
            "revision": self.source.revision if hub else self.source.md5 and f"md5:{self.source.md5}",
            "config": self.source.config if hub else None,
            "split": self.source.split if hub else self.source.file,
            "columns": list(self.source.columns),
            "samples": self.source.rows,
            "metrics": [metric.name for metric in self.metrics],
            "answers": self.answers.words,
            "chance": {"all": self.chance},
            "cluster": self.cluster,
            "licence": self.licence or None,
            "rule_of": self.seen_in,
        }
