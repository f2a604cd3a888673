"""Where attention looks: the share of what a question is about among the units that are attended to most.

    python benchmarks/attention_by_layer.py --write docs/attention-by-layer.md

About twenty minutes. Nothing is pruned before it is measured: a row ranks all units of an image, the best 50, 25 and
11 % are taken, and counted is how much of the target (the units that its boxes overlap) is among them. Chance is 50,
25 and 11 %.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from harness.adapter_training.adapter import answer_logits, frozen, plan_for
from harness.adapter_training.guidance import extra_attention, middle, watching_cuts
from harness.benchmarks import Benchmark, open_benchmark
from harness.benchmarks.targets import units_of
from harness.models.attention import TAP
from harness.models.clock import Untimed
from harness.models.engine import Engine
from harness.models.families.family import Inputs
from harness.models.loading import OpenModel, open_model
from harness.records.records import Sample
from methods.base import Budget
from methods.quietprune import QuietPrune

SHARES = (0.5, 0.25, 0.11)
ABOUT = """
* *layer*: the LLM's attention from the token that predicts the answer to the visual tokens, mean over heads. FastV,
  PyramidDrop and SparseVLM rank by such attention; FastV cuts behind the second layer. *all* and *middle half* are
  means over layers, teachers of QuietPrune's guidance term (harness/adapter_training/guidance.py).
* *[Q-CLS]*: the attention of QuietPrune's extra ViT token, as shipped, in the block before each cut.
* *token of an image*: a token fitted to this image, question and target in place of [Q-CLS] (Adam, {steps} steps, each
  cut by itself). It knows the answer: what the frozen ViT lets any token find. First {fitted} of the questions.
* *token of a question*: one token for all images of a question, fitted to {seen} of them and measured on up to {unseen}
  others ({epochs} epochs, all cuts together; the most frequent question of each kind in the whole suite). What an
  adapter that reads the question alone might reach, as far as such a fit is a good one.
"""
SEEN, UNSEEN, EPOCHS, BATCH = 20, 8, 12, 5
Ranked = Iterator[tuple[str, Tensor]]  # what ranks, and its weight on each unit


class Fitted(torch.nn.Module):
    """An adapter that gives the same token whatever is asked."""

    def __init__(self, width: int):
        super().__init__()
        self.token = torch.nn.Parameter(torch.randn(1, width) * 0.5)

    def forward(self, question: Tensor) -> Tensor:
        return self.token


def of_llm(model: OpenModel, inputs: Inputs, answer_tokens: int) -> Ranked:
    """The attention of each layer of the LLM, and means of them."""
    engine = Engine(model.family, None)
    modules = [layer.self_attn for layer in model.family.decoder.layers]
    row = inputs.prompt.length - answer_tokens - 1
    with TAP.watching(modules, model.family.kernels) as seen:
        answer_logits(engine, inputs, answer_tokens, plan_for(engine, inputs, 1.0))
        rows = [seen[id(module)][-1].logits(slice(row, row + 1), True).softmax(-1).mean((0, 1)) for module in modules]
    looks = torch.stack(rows)[:, inputs.prompt.visual_index]  # (layers, n)
    yield from ((f"layer {number + 1}", look) for number, look in enumerate(looks))
    yield "all", looks.mean(0)
    yield "middle half", looks[middle(len(looks))].mean(0)


def of_cuts(engine: Engine, inputs: Inputs) -> list[Tensor]:
    """The attention of the extra ViT token at each cut, all units but one alive."""
    plan = engine.plan(Budget("layer_average", inputs.shape.n - 1), inputs.shape)
    with watching_cuts(engine, plan) as captures, engine.encoded(inputs, plan, 0, Untimed()) as encoded:
        pass
    found, alive = [], torch.arange(inputs.shape.n)
    for site in sorted(plan.keeps):
        own = extra_attention(captures[site.layer], 0, alive.numel(), encoded.trace.shape)
        found.append(own.new_zeros(inputs.shape.n).index_put((alive,), own))
        image, unit = encoded.trace.kept[site.label]
        alive = unit[image == 0]
    return found


@contextmanager
def fitted(engine: Engine) -> Iterator[tuple[Fitted, torch.optim.Optimizer]]:
    """Within the block the engine's extra token is one that can be fitted."""
    shipped = engine.prepared
    engine.prepared = Fitted(shipped(torch.zeros(1, shipped.inverse_2.in_features)).shape[1])
    try:
        yield engine.prepared, torch.optim.Adam(engine.prepared.parameters(), lr=0.05)
    finally:
        engine.prepared = shipped


def miss(look: Tensor, target: set[int]) -> Tensor:
    """Cross-entropy of a look and an even one at the target."""
    return -look[sorted(target)].clamp_min(1e-9).log().mean()


def of_image(engine: Engine, inputs: Inputs, target: set[int], steps: int) -> Ranked:
    """The attention of a token fitted to one image, for each cut."""
    for cut in range(3):
        with fitted(engine) as (_, optimizer):
            for _ in range(steps):
                optimizer.zero_grad()
                miss(of_cuts(engine, inputs)[cut], target).backward()
                optimizer.step()
            yield f"token of an image, cut {cut + 1}", of_cuts(engine, inputs)[cut]


def of_question(engine: Engine, asked: list[tuple[Inputs, set[int]]]) -> Iterator[tuple[str, Tensor, set[int]]]:
    """The attention of a token fitted to the first SEEN images of a question, at each cut of the others."""
    with fitted(engine) as (_, optimizer):
        for first in [*range(0, SEEN, BATCH)] * EPOCHS:
            optimizer.zero_grad()
            for inputs, target in asked[first : first + BATCH]:
                (sum(miss(look, target) for look in of_cuts(engine, inputs)) / BATCH).backward()
            optimizer.step()
        for inputs, target in asked[SEEN : SEEN + UNSEEN]:
            for cut, look in enumerate(of_cuts(engine, inputs)):
                yield f"token of a question, cut {cut + 1}", look, target


def recall(look: Tensor, target: set[int], share: float) -> float:
    """Share of the target's units among the best `share` of all."""
    best = set(look.topk(max(1, round(share * look.numel()))).indices.tolist())
    return len(best & target) / len(target)


def measured(name: str, samples: int, images: int, steps: int) -> dict[str, list[float]]:
    """What ranks -> mean recall at SHARES. images: for how many a token is fitted."""
    model, quick, whole = open_model(name), open_benchmark("reference-quick"), open_benchmark("reference")
    engine, found = model.engine(QuietPrune()), defaultdict(list)
    torch.manual_seed(0)

    def count(what: str, look: Tensor, target: set[int]) -> None:
        found[what].append([recall(look.detach(), target, share) for share in SHARES])

    with frozen(model.family.model):
        for number, sample in enumerate(_boxed(quick)[:samples]):
            inputs, target, answer = _opened(model, quick, sample)
            with torch.no_grad():
                looks = [*of_llm(model, inputs, answer)]
                looks += [(f"[Q-CLS], cut {cut + 1}", look) for cut, look in enumerate(of_cuts(engine, inputs))]
            if number < images:
                looks += of_image(engine, inputs, target, steps)
            for what, look in looks:
                count(what, look, target)
        for question in _frequent(whole):
            asked = [sample for sample in _boxed(whole) if sample.question == question][: SEEN + UNSEEN]
            for what, look, target in of_question(engine, [_opened(model, whole, one)[:2] for one in asked]):
                count(what, look, target)
    return {what: torch.tensor(rows).mean(0).tolist() for what, rows in found.items()}


def _boxed(benchmark: Benchmark) -> list[Sample]:
    return [sample for sample in benchmark.samples if sample.boxes]


def _frequent(benchmark: Benchmark) -> list[str]:
    """The most frequent question of each category, where more images than SEEN have it."""
    counts = Counter((sample.category, sample.question) for sample in _boxed(benchmark))
    best = {category: (question, n) for (category, question), n in reversed(counts.most_common())}
    return [question for question, n in best.values() if n > SEEN]


def _opened(model: OpenModel, benchmark: Benchmark, sample: Sample) -> tuple[Inputs, set[int], int]:
    """The prompt with its answer, the units of the target, and the answer's tokens."""
    images = benchmark.load_images(sample)
    inputs, answer = model.prepare_answered(images, benchmark.prompt(sample), sample.answer)
    grid, size = inputs.shape.grids[0], images[0].size
    return inputs, {unit for box in sample.boxes for unit in units_of(box, size, grid)}, answer.shape[0]


def document(found: dict[str, dict[str, list[float]]], samples: int, about: str) -> str:
    """The page. found: model -> what ranks -> mean recall at SHARES."""
    head = "".join(f" {name} {share:.0%} |" for name in found for share in SHARES)
    lines = [f"| |{head}", "|---|" + "---|" * len(found) * len(SHARES)]
    for what in next(iter(found.values())):
        cells = [f"{100 * value:.0f}" for rows in found.values() for value in rows[what]]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    made = __doc__.split("\n\n")
    said = f"First {samples} questions with boxes of the quick split, percent.\n{about.rstrip()}"
    parts = ("# Where attention looks", f"Made by\n\n{made[1]}", made[2].strip(), said, "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="reference-a,reference-b")
    parser.add_argument("--samples", type=int, default=150)
    parser.add_argument("--fitted", type=int, default=20, help="images for which a token is fitted")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    asked = parser.parse_args()
    about = ABOUT.format(steps=asked.steps, fitted=asked.fitted, seen=SEEN, unseen=UNSEEN, epochs=EPOCHS)
    found = {
        name: measured(name, asked.samples, asked.fitted, asked.steps) for name in asked.models.split(",")
    }  # fmt: skip
    text = document(found, asked.samples, about)
    asked.write.write_text(text) if asked.write else print(text)


if __name__ == "__main__":
    main()
