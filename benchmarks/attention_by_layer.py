"""Where attention looks: the share of what a question is about among the units that are attended to most.

    python benchmarks/attention_by_layer.py --write docs/attention-by-layer.md

About fifteen minutes. Nothing is pruned before it is measured: a row ranks all units of an image, the best 50, 25 and
11 % are taken, and counted is how much of the target (the units that its boxes overlap) is among them. Chance is 50,
25 and 11 %.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from harness.benchmarks import Benchmark, open_benchmark
from harness.benchmarks.targets import units_of
from harness.models.attention import TAP
from harness.models.clock import Untimed
from harness.models.engine import Engine
from harness.models.family import Inputs
from harness.models.loading import OpenModel, open_model
from harness.records import Sample
from harness.train.adapter import answer_logits, frozen, plan_for
from harness.train.guidance import extra_attention, middle, watching_cuts
from methods.base import Budget
from methods.quietprune import QuietPrune

SHARES = (0.5, 0.25, 0.11)
ABOUT = """
* *layer*: the LLM's attention from the token that predicts the answer to the visual tokens, mean over heads. FastV,
  PyramidDrop and SparseVLM rank by such attention; FastV cuts behind the second layer. *all* and *middle half* are
  means over layers, teachers of QuietPrune's guidance term (harness/train/guidance.py).
* *[Q-CLS]*: the attention of QuietPrune's extra ViT token, as shipped, in the block before each cut.
* *fitted token*: the same with a token that was fitted to this image, question and target (Adam, {steps} steps), and so
  knows the answer: what the frozen ViT lets one token find. First {fitted} of the questions.
"""
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


def of_fitted(engine: Engine, inputs: Inputs, target: set[int], steps: int) -> Ranked:
    """The same with a token fitted to each cut."""
    wanted = torch.zeros(inputs.shape.n).index_fill(0, torch.tensor(sorted(target)), 1 / len(target))
    width = engine.prepared(torch.zeros(1, engine.prepared.inverse_2.in_features)).shape[1]
    shipped = engine.prepared
    for cut in range(3):
        engine.prepared = Fitted(width)
        optimizer = torch.optim.Adam(engine.prepared.parameters(), lr=0.05)
        for _ in range(steps):
            loss = -(wanted * of_cuts(engine, inputs)[cut].clamp_min(1e-9).log()).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield f"fitted token, cut {cut + 1}", of_cuts(engine, inputs)[cut]
    engine.prepared = shipped


def recall(look: Tensor, target: set[int], share: float) -> float:
    """Share of the target's units among the best `share` of all."""
    best = set(look.topk(max(1, round(share * look.numel()))).indices.tolist())
    return len(best & target) / len(target)


def measured(name: str, samples: int, fitted: int, steps: int) -> dict[str, list[float]]:
    """What ranks -> mean recall at SHARES."""
    model, benchmark = open_model(name), open_benchmark("reference-quick")
    engine, found = model.engine(QuietPrune()), defaultdict(list)
    torch.manual_seed(0)
    with frozen(model.family.model):
        for number, (sample, images) in enumerate(_asked(benchmark, samples)):
            inputs, answer = model.prepare_answered(images, benchmark.prompt(sample), sample.answer)
            target = {
                unit for box in sample.boxes for unit in units_of(box, images[0].size, inputs.shape.grids[0])
            }  # fmt: skip
            with torch.no_grad():
                looks = [*of_llm(model, inputs, answer.shape[0])]
                looks += [(f"[Q-CLS], cut {cut + 1}", look) for cut, look in enumerate(of_cuts(engine, inputs))]
            if number < fitted:
                looks += of_fitted(engine, inputs, target, steps)
            for what, look in looks:
                found[what].append([recall(look.detach(), target, share) for share in SHARES])
    return {what: torch.tensor(rows).mean(0).tolist() for what, rows in found.items()}


def _asked(benchmark: Benchmark, samples: int) -> Iterator[tuple[Sample, list]]:
    boxed = [sample for sample in benchmark.samples if sample.boxes][:samples]
    return ((sample, benchmark.load_images(sample)) for sample in boxed)


def document(models: list[str], tell: Callable[..., dict[str, list[float]]], samples: int, about: str) -> str:
    found = {name: tell(name) for name in models}
    head = "".join(f" {name} {share:.0%} |" for name in models for share in SHARES)
    lines = [f"| |{head}", "|---|" + "---|" * len(models) * len(SHARES)]
    for what in found[models[0]]:
        cells = [f"{100 * value:.0f}" for name in models for value in found[name][what]]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    made = __doc__.split("\n\n")
    said = f"First {samples} questions with boxes of the quick split, percent.\n{about.rstrip()}"
    parts = (
        "# Where attention looks",
        f"Made by\n\n{made[1]}",
        made[2].strip(),
        said + about.rstrip(),
        "\n".join(lines),
    )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="reference-a,reference-b")
    parser.add_argument("--samples", type=int, default=150)
    parser.add_argument("--fitted", type=int, default=20, help="questions for which a token is fitted")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    asked = parser.parse_args()
    text = document(
        asked.models.split(","),
        lambda name: measured(name, asked.samples, asked.fitted, asked.steps),
        asked.samples,
        ABOUT.format(steps=asked.steps, fitted=asked.fitted),
    )
    asked.write.write_text(text) if asked.write else print(text)


if __name__ == "__main__":
    main()
