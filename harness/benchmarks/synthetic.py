"""One picture and one question of given sizes: all that latency and FLOPs depend on, as a benchmark without answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from PIL import Image

from harness.benchmarks.base import Benchmark
from harness.records.errors import UsageError
from harness.records.records import Record, Sample, digest

MOST_PIXELS = 50_000_000
_CELLS = 24  # coloured squares along each side: something to look at, so that no two tokens are equal


@dataclass(frozen=True)
class SyntheticScene:
    """A picture of width x height pixels, seeded, and the number of words asked about it."""

    width_px: int
    height_px: int
    text_tokens: int = 40
    seed: int = 0

    @staticmethod
    def parse(words: str, text_tokens: int = 40, seed: int = 0) -> SyntheticScene:
        """Read "448" (a square) or "640x480", width first. Raises UsageError."""
        parts = words.lower().split("x")
        if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise UsageError(f"cannot read the image size {words!r}; write 448 or 640x480 (width x height, pixels)")
        width, height = int(parts[0]), int(parts[-1])
        if width * height > MOST_PIXELS:
            raise UsageError(f"an image of {width}x{height} has over {MOST_PIXELS} pixels; ask for a smaller one")
        return SyntheticScene(width, height, text_tokens, seed)

    @property
    def label(self) -> str:
        return f"{self.width_px}x{self.height_px}"

    def picture(self) -> Image.Image:
        draws = Random(self.seed).randbytes(3 * _CELLS * _CELLS)
        squares = Image.frombytes("RGB", (_CELLS, _CELLS), draws)
        return squares.resize((self.width_px, self.height_px), Image.Resampling.BICUBIC)

    def question(self, words: str) -> str:
        """`text_tokens` words drawn from `words`; one token each, where the tokenizer has them whole."""
        return " ".join(Random(self.seed).choices(words.split(), k=self.text_tokens))


@dataclass(frozen=True)
class SceneBenchmark(Benchmark):
    """A scene as the timing pass takes it. It has no right answer and gives no score."""

    scene: SyntheticScene
    words: str

    def load_image(self, sample: Sample, index: int) -> Image.Image:
        return self.scene.picture()

    def prompt(self, sample: Sample) -> str:
        return self.scene.question(self.words)

    def score(self, prediction: str, sample: Sample) -> float:
        raise NotImplementedError("a scene has no right answer: it is there for timing alone")

    def metrics(self, records: Iterable[Record]) -> dict[str, float]:
        return {}


def benchmark_of(scene: SyntheticScene, words: str) -> SceneBenchmark:
    """The benchmark of one sample that a scene makes."""
    sample = Sample(f"scene-{scene.label}", "scene", "scene", "", "", ("scene",))
    return SceneBenchmark(
        name=f"scene-{scene.label}",
        title="one synthetic picture, for timing",
        revision=digest({**vars(scene), "words": words}),
        licence="ours",
        max_new_tokens=1,
        samples=(sample,),
        chance={},
        scene=scene,
        words=words,
    )
