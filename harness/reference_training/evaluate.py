"""Exact match of a checkpoint on the suite, unpruned: `python -m harness.reference_training.evaluate --checkpoint DIR`.

An answer counts when greedy decoding gives exactly it and stops. All questions of an image are packed behind it; the
packed forward agrees with the native one. Intervals: 95 %, clustered by image (harness/stats), since questions of
one image are not independent.
"""

import argparse
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from harness.models.processors import load_processor
from harness.reference.paths import MODEL_A, SUITE
from harness.reference.suite import Question, load_questions
from harness.reference_training.architecture import IMAGE_PX
from harness.reference_training.asking import Asked
from harness.reference_training.batches import IGNORED, LENGTH, Encoder, patches_of
from harness.reference_training.kinds import kind_of
from harness.reference_training.words import FAMILIES
from harness.stats import accuracy_interval


@torch.inference_mode()
def right_answers(checkpoint: Path, suite: Path, questions: list[Question]) -> np.ndarray:
    """Whether the model of `checkpoint` answers each question exactly, bool (questions,). Questions of an image must
    be adjacent."""
    kind = kind_of(checkpoint)
    model = kind.native.from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True).eval()
    encode, packed = Encoder(load_processor(checkpoint).tokenizer), kind.packed(model)
    right, layouts = [], {}
    for image, group in groupby(questions, key=lambda question: question.image):
        blocks = [encode.block(Asked(q.family, q.question, q.answer, q.boxes)) for q in group]
        inputs, targets = (torch.tensor(part)[None] for part in zip(*blocks, strict=True))
        if len(blocks) not in layouts:
            layouts[len(blocks)] = kind.layout(model, IMAGE_PX, len(blocks), LENGTH)
        tables = layouts[len(blocks)]
        pixels = np.asarray(Image.open(suite / image).convert("RGB"))
        _, tokens, deep = packed.see(torch.from_numpy(patches_of(pixels))[None], tables)
        best = packed.answer(tokens, deep, inputs, tables).argmax(-1).view(targets.shape)
        right.append(((best == targets) | (targets == IGNORED)).all(-1)[0].numpy())
    return np.concatenate(right)


def table(questions: list[Question], right: np.ndarray) -> Iterable[str]:
    """Lines of the accuracy table: a family a line, then the mean of families."""
    yield f"{'family':8s} {'n':>5s} {'exact':>6s}  {'95 % interval':15s} {'majority':>8s}  answer"
    scores, bases = [], []
    for family in FAMILIES:
        chosen = [i for i, question in enumerate(questions) if question.family == family]
        if not chosen:
            continue
        hits = right[chosen]
        bounds = _bounds(hits, [questions[i].image for i in chosen])
        majority = questions[chosen[0]].majority
        base = float(np.mean([questions[i].answer == majority for i in chosen]))
        scores.append(float(hits.mean()))
        bases.append(base)
        yield f"{family:8s} {len(chosen):5d} {hits.mean():6.3f}  {bounds}   {base:8.3f}  {majority}"
    bounds = _bounds(right, [question.image for question in questions])
    yield f"{'all':8s} {len(questions):5d} {right.mean():6.3f}  {bounds}"
    yield f"{'average':8s} {'':5s} {np.mean(scores):6.3f}  {'of families':15s} {np.mean(bases):8.3f}"


def _bounds(right: np.ndarray, images: list[str]) -> str:
    found = accuracy_interval(right, images)
    return f"{found.low:.3f} - {found.high:.3f}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=MODEL_A)
    parser.add_argument("--suite", type=Path, default=SUITE)
    parser.add_argument("--quick", action="store_true", help="the quick split only")
    asked = parser.parse_args()
    questions = [question for question in load_questions(asked.suite) if question.quick or not asked.quick]
    for line in table(questions, right_answers(asked.checkpoint, asked.suite, questions)):
        print(line)


if __name__ == "__main__":
    main()
