"""Does the staged path cost anything when nothing is pruned? `python benchmarks/keep_all.py [--pairs N]`.

Pairs of one native prefill (`model(**inputs)`, pixel values to logits of the last token) and one staged prefill at
keep = 100 %, in random order, same weights, same process. Prints the median of the pairs' time ratios (staged / native)
with a 95 % interval, and the medians in ms. The target is a ratio of at most 1.05.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import numpy as np
import torch
from PIL import Image

from harness.models.loading import open_model
from methods import build
from methods.base import Budget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="reference-a")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--side", type=int, default=256, help="side of the image in pixels")
    asked = parser.parse_args()
    model = open_model(asked.model)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (asked.side, asked.side, 3), dtype=np.uint8))
    processed = model.processed([image], "number on the red sign?")
    inputs = model.family.inputs(processed)
    engine = model.engine(build("random"))
    plan = engine.plan(Budget("layer_average", inputs.shape.n), inputs.shape)

    @torch.no_grad()
    def native() -> None:
        model.model(**processed, use_cache=True, logits_to_keep=1).logits[0, -1].argmax()

    def staged() -> None:
        engine.prefill(inputs, plan)

    def ms(run) -> float:
        begun = time.perf_counter_ns()
        run()
        return (time.perf_counter_ns() - begun) / 1e6

    for _ in range(10):
        native()
        staged()
    order, pairs = random.Random(0), []
    for _ in range(asked.pairs):
        arms = [native, staged]
        order.shuffle(arms)
        times = {arm: ms(arm) for arm in arms}
        pairs.append((times[native], times[staged]))
    ratios = sorted(ours / theirs for theirs, ours in pairs)
    rank = round(0.5 * asked.pairs - 0.98 * asked.pairs**0.5)  # distribution-free interval of a median
    low, high = ratios[rank], ratios[-1 - rank]
    theirs, ours = (statistics.median(arm) for arm in zip(*pairs, strict=True))
    print(f"{asked.pairs} pairs, {inputs.shape.n} visual tokens, {torch.get_num_threads()} threads")
    print(f"native {theirs:.2f} ms, staged {ours:.2f} ms")
    print(f"staged / native {statistics.median(ratios):.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
