"""What adapters are trained on: endless, seeded streams of (images, question, answer)."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from harness.benchmarks.images import decode
from harness.records.errors import UsageError


@dataclass(frozen=True)
class Example:
    """One question with its right answer."""

    images: tuple[Image.Image, ...]
    question: str
    answer: str


Stream = Callable[[int], Iterator[Example]]  # from a seed, an endless sequence


def open_examples(source: str) -> Stream:
    """`reference-train` (scenes from the reference suite's training material) or the path of a JSONL file.

    Lines of a file: {"image": path beside it, or "images": [paths], "question": ..., "answer": ...}.
    Raises UsageError for anything else; harness.reference's MaterialsMissing where its packages are not installed.
    """
    if source == "reference-train":
        return _reference()
    if Path(source).is_file():
        return functools.partial(_from_file, Path(source))
    raise UsageError(f"no training data {source!r}; give reference-train or the path of a JSONL file")


def _reference() -> Stream:
    import numpy as np

    from harness.reference_training.architecture import IMAGE_PX
    from harness.reference_training.batches import questions_for
    from harness.reference_training.materials import load_materials
    from harness.reference_training.scenes import make_scene
    from harness.reference_training.sprites import SpriteBank

    materials = load_materials("train")
    bank = SpriteBank(materials, np.random.default_rng(0), variants=60, numbers_each=16)

    def stream(seed: int) -> Iterator[Example]:
        rng = np.random.default_rng(seed)
        while True:
            scene = make_scene(materials, bank, rng, IMAGE_PX, bool(rng.random() < 0.5))
            for asked in questions_for(scene, rng, most=2):
                yield Example((Image.fromarray(scene.image),), asked.question, asked.answer)

    return stream


def _from_file(path: Path, seed: int) -> Iterator[Example]:
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    order = random.Random(seed)
    while True:
        order.shuffle(rows)
        for number, row in enumerate(rows, 1):
            names = row.get("images") or [row.get("image")]
            if None in names or "question" not in row or "answer" not in row:
                raise UsageError(f"{path}: example {number} needs image (or images), question and answer; it has {row}")
            images = tuple(decode(path.parent / name, name) for name in names)
            yield Example(images, row["question"], row["answer"])
