"""What every benchmark gives: samples, images, a prompt, a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL.Image import Image

from harness.records.records import Record, Sample


@dataclass(frozen=True)
class Benchmark(ABC):
    """A frozen set of questions.

    revision: sha256 of everything that could change an answer. max_new_tokens: enough for the longest answer.
    chance: category -> the share that always giving its commonest answer scores, in [0, 1].
    answerer: how its questions are answered where the accuracy pass cannot (harness/run/accuracy.py has the type).
    """

    answerer: ClassVar[Callable[..., Any] | None] = None

    name: str
    title: str
    revision: str
    licence: str
    max_new_tokens: int
    samples: tuple[Sample, ...]
    chance: Mapping[str, float]

    @abstractmethod
    def load_image(self, sample: Sample, index: int) -> Image:
        """Image `index` of a sample, decoded to RGB. Raises UndecodableImage."""

    @abstractmethod
    def prompt(self, sample: Sample) -> str:
        """The question as the model reads it, without image placeholders or chat template."""

    @abstractmethod
    def score(self, prediction: str, sample: Sample) -> float | None:
        """How right a prediction is, in [0, 1]; higher is better. None where `judge` says so once a run is there."""

    @abstractmethod
    def metrics(self, records: Iterable[Record]) -> dict[str, float]:
        """Name with its rule -> the value over the records of a run; not a number where no row has a say."""

    def load_images(self, sample: Sample) -> list[Image]:
        """All images of a sample, in order. Raises UndecodableImage."""
        return [self.load_image(sample, index) for index in range(len(sample.images))]

    def inputs(self, sample: Sample, model: Any) -> Any:
        """One question as an open model's engine takes it; None where it shows no image. Raises UndecodableImage."""
        return model.prepare(self.load_images(sample), self.prompt(sample))

    def judge(self, records: Mapping[str, Record], folder: Path) -> tuple[Mapping[str, Record], Mapping[str, float]]:
        """The records of a whole run with their scores, and its metrics. folder: for files that scoring may write."""
        return records, self.metrics(records.values())

    def facts(self, model: Any) -> Mapping[str, Any]:
        """What a run's log should tell of the benchmark on an open model besides its identity; plain JSON."""
        return {}

    def notes(self) -> Sequence[str]:
        """Sentences for whoever runs it."""
        return ()
