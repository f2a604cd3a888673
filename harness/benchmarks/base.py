"""What every benchmark gives: samples, images, a prompt, a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from PIL.Image import Image

from harness.records.records import Record, Sample


@dataclass(frozen=True)
class Benchmark(ABC):
    """A frozen set of questions.

    revision: sha256 of everything that could change an answer. max_new_tokens: enough for the longest answer.
    chance: category -> the share that always giving its commonest answer scores, in [0, 1].
    """

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
    def score(self, prediction: str, sample: Sample) -> float:
        """How right a prediction is, in [0, 1]; higher is better."""

    @abstractmethod
    def metrics(self, records: Iterable[Record]) -> dict[str, float]:
        """Name with its rule -> the value over the records of a run; not a number where no row has a say."""

    def load_images(self, sample: Sample) -> list[Image]:
        """All images of a sample, in order. Raises UndecodableImage."""
        return [self.load_image(sample, index) for index in range(len(sample.images))]
