"""Exact match of the suite by selector and budget: `python -m harness.reference_training.gate` prints it.

Visual tokens are dropped at the interface: dropped ones are masked as keys from the first layer on; kept ones stay at
their positions. *oracle* keeps the tokens that the target's boxes touch
(largest overlap first) and fills up at random, *anti-oracle* keeps none of them, *farthest* starts from the token least
like the mean and takes the farthest by cosine. Oracle is a bound for selection, not a method; use it on families whose
answer it does not leak (read, color).
"""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from harness.models.processors import load_processor
from harness.reference.paths import MODEL_A, SUITE
from harness.reference.suite import Question, load_questions
from harness.reference_training.architecture import IMAGE_PX
from harness.reference_training.asking import Asked
from harness.reference_training.batches import IGNORED, LENGTH, Encoder, patches_of
from harness.reference_training.labels import overlaps
from harness.reference_training.packed import PackedModel, layout

BUDGETS = {"50 %": 32, "25 %": 16, "11 %": 7}
SELECTORS = ("oracle", "farthest", "random", "anti-oracle")


def farthest_points(tokens: Tensor, keep: int) -> list[int]:
    """`keep` rows of tokens (n, d), each farthest by cosine from those chosen before."""
    unit = F.normalize(tokens, dim=-1)
    chosen = [int((unit @ unit.mean(0)).argmin())]
    distance = 1 - unit @ unit[chosen[0]]  # (n,)
    while len(chosen) < keep:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, 1 - unit @ unit[chosen[-1]])
    return chosen


def kept_tokens(selector: str, question: Question, tokens: Tensor, keep: int, rng: np.random.Generator) -> list[int]:
    """The indices that `selector` keeps of tokens (n, d). Raises ValueError for a selector that is not known."""
    share = overlaps(question.boxes, IMAGE_PX)
    touched = np.flatnonzero(share > 0)
    others = rng.permutation(np.flatnonzero(share == 0))
    match selector:
        case "oracle":
            return [*touched[np.argsort(-share[touched], kind="stable")], *others][:keep]
        case "anti-oracle":
            return list(others[:keep])
        case "random":
            return list(rng.permutation(len(share))[:keep])
        case "farthest":
            return farthest_points(tokens, keep)
    raise ValueError(f"unknown selector {selector!r}; there are {', '.join(SELECTORS)}")


@torch.inference_mode()
def scores(checkpoint: Path, suite: Path, questions: list[Question], seed: int) -> dict[tuple[str, str], float]:
    """Exact match by (selector, budget), and ("unpruned", ""). Questions of an image must be adjacent."""
    model = Qwen3VLForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, use_safetensors=True
    ).eval()
    encode, packed = Encoder(load_processor(checkpoint).tokenizer), PackedModel(model)
    tables, rng = layout(model, IMAGE_PX, 1, LENGTH), np.random.default_rng(seed)
    right: dict[tuple[str, str], list[bool]] = {}
    for image, group in groupby(questions, key=lambda question: question.image):
        asked = list(group)
        pixels = np.asarray(Image.open(suite / image).convert("RGB"))
        _, tokens, deep = packed.see(torch.from_numpy(patches_of(pixels))[None], tables)
        blocks = [encode.block(Asked(q.family, q.question, q.answer, q.boxes)) for q in asked]
        inputs, targets = (torch.tensor(part)[:, None] for part in zip(*blocks, strict=True))
        everything = list(range(tables.image_tokens))
        cells = {("unpruned", ""): [everything] * len(asked)} | {
            (selector, name): [kept_tokens(selector, q, tokens[0], keep, rng) for q in asked]
            for selector in SELECTORS
            for name, keep in BUDGETS.items()
        }
        wide = tokens.expand(len(asked), -1, -1), deep.expand(len(asked), -1, -1)
        for cell, kept in cells.items():
            best = packed.answer(*wide, inputs, replace(tables, mask=_hiding(tables.mask, kept, tables.image_tokens)))
            hits = ((best.argmax(-1).view(targets.shape) == targets) | (targets == IGNORED)).all(-1)[:, 0]
            right.setdefault(cell, []).extend(hits.tolist())
    return {cell: float(np.mean(hits)) for cell, hits in right.items()}


def _hiding(mask: Tensor, kept: list[list[int]], n: int) -> Tensor:
    """mask (T, T) -> (B, 1, T, T) in which image tokens that are not kept are seen by themselves only."""
    masks = mask.repeat(len(kept), 1, 1)
    for one, indices in zip(masks, kept, strict=True):
        dropped = 1 + np.setdiff1d(np.arange(n), indices)
        one[:, dropped] = float("-inf")
        one[dropped, dropped] = 0.0
    return masks[:, None]


def rows(found: dict[tuple[str, str], float]) -> Iterable[str]:
    """The Markdown table: selectors down, budgets across, in per cent."""
    yield "| selector | " + " | ".join(f"{name} ({keep})" for name, keep in BUDGETS.items()) + " |"
    yield "|---" * (len(BUDGETS) + 1) + "|"
    for selector in SELECTORS:
        yield f"| {selector} | " + " | ".join(f"{100 * found[selector, name]:.1f}" for name in BUDGETS) + " |"
    gap = [100 * (found["oracle", name] - found["farthest", name]) for name in BUDGETS]
    yield "| oracle - farthest | " + " | ".join(f"{points:.1f}" for points in gap) + " |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=MODEL_A)
    parser.add_argument("--suite", type=Path, default=SUITE)
    parser.add_argument("--family", default="read")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    questions = [q for q in load_questions(asked.suite) if q.family == asked.family][: asked.limit]
    found = scores(asked.checkpoint, asked.suite, questions, asked.seed)
    print(f"{asked.family}, n = {len(questions)}, unpruned {100 * found['unpruned', '']:.1f}\n")
    for row in rows(found):
        print(row)


if __name__ == "__main__":
    main()
