"""What selection alone can win or lose on the reading questions: `python -m harness.reference.bounds`.

Four selectors at equal budgets, at the interface, on the same questions: the oracle keeps the units of the target's
boxes first, the anti-oracle drops them first (both fill up at random), beside random and farthest-point (divprune).
The oracle knows the answer's place: it is a bound for selection, not a method, and is no part of `methods`. If the
anti-oracle does better than guessing, the information leaks past the target's tokens, and the suite is no testbed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from harness.benchmarks import open_benchmark
from harness.benchmarks.targets import units_of
from harness.budget import BudgetSpec
from harness.models.loading import OpenModel, open_model
from harness.records import Sample
from harness.stats import Interval, accuracy_interval, paired_difference
from methods import build
from methods.base import INTERFACE, Budget, Pruner, Selection, View

SELECTORS = ("oracle", "farthest-point", "random", "anti-oracle")


@dataclass(frozen=True)
class TargetFirst(Pruner):
    """Keeps the target's units first (wanted) or last, the rest in random order."""

    name: ClassVar[str] = "target-first"
    hooks: ClassVar[tuple[str, ...]] = (INTERFACE,)

    target: frozenset[int] = frozenset()
    wanted: bool = True

    def at_interface(self, view: View) -> Selection:
        chance = torch.rand(view.n, generator=view.generator())  # in [0, 1)
        chance[sorted(self.target)] += 1 if self.wanted else -1
        order = torch.sort(chance, descending=True, stable=True).indices
        return Selection(order[: view.keep].sort().values)


@dataclass(frozen=True)
class Cell:
    """Scores of one selector at one budget, question by question."""

    selector: str
    budget: str
    scores: tuple[float, ...]


def measure(model: OpenModel, samples: Sequence[Sample], benchmark, budgets: Sequence[str]) -> Iterator[Cell]:
    """Scores of the unpruned model and of every selector at every budget."""
    prepared = [(sample, benchmark.load_images(sample)) for sample in samples]
    yield _cell(model, benchmark, prepared, "unpruned", "100%")
    for words in budgets:
        for selector in SELECTORS:
            yield _cell(model, benchmark, prepared, selector, words)


def _cell(model: OpenModel, benchmark, prepared, selector: str, words: str) -> Cell:
    shared = None if "oracle" in selector else model.engine(_pruner(selector))
    scores = []
    for number, (sample, images) in enumerate(prepared):
        inputs = model.prepare(images, benchmark.prompt(sample))
        engine = shared or model.engine(TargetFirst(_target(sample, images, inputs), selector == "oracle"))
        plan = engine.plan(Budget("layer_average", BudgetSpec.parse(words).ask(inputs.shape.n)), inputs.shape)
        tokens, trace = engine.generate(
            inputs, plan, seed=number, max_new_tokens=benchmark.max_new_tokens, do_sample=False
        )
        answer = model.decode(tokens[0, inputs.text_tokens + trace.entering[0] :])
        scores.append(benchmark.score(answer, sample))
    return Cell(selector, words, tuple(scores))


def _pruner(selector: str) -> Pruner | None:
    return {"unpruned": None, "random": build("random"), "farthest-point": build("divprune")}[selector]


def _target(sample: Sample, images, inputs) -> frozenset[int]:
    found = (units_of(box, images[0].size, inputs.shape.grids[0]) for box in sample.boxes)
    return frozenset().union(*found)


def table(cells: Sequence[Cell], samples: Sequence[Sample]) -> Iterator[str]:
    """Lines: exact match in % with 95 % interval by selector and budget, then the two differences of the gate."""
    clusters = [sample.cluster for sample in samples]
    majority = max(samples, key=lambda s: sum(other.answer == s.answer for other in samples)).answer
    share = sum(sample.answer == majority for sample in samples) / len(samples)
    full = cells[0]
    unpruned = _show(accuracy_interval(full.scores, clusters))
    yield f"{len(samples)} questions on {len(set(clusters))} images; unpruned {unpruned}"
    yield f"the majority answer ({majority}) is right in {share:.1%}"
    yield f"{'kept':>5s}  " + "  ".join(f"{selector:>20s}" for selector in SELECTORS)
    for words in dict.fromkeys(cell.budget for cell in cells[1:]):
        row = {cell.selector: cell for cell in cells[1:] if cell.budget == words}
        shown = (_show(accuracy_interval(row[selector].scores, clusters)) for selector in SELECTORS)
        yield f"{words:>5s}  " + "  ".join(f"{text:>20s}" for text in shown)
    for words in dict.fromkeys(cell.budget for cell in cells[1:]):
        row = {cell.selector: cell.scores for cell in cells[1:] if cell.budget == words}
        for other in ("farthest-point", "random"):
            yield f"{words:>5s}  oracle - {other}: {_show(paired_difference(row['oracle'], row[other], clusters))}"


def _show(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="reference-a")
    parser.add_argument("--family", default="read", help="read, color or where: families whose boxes leak no answer")
    parser.add_argument("--budgets", default="50%,25%,11%")
    parser.add_argument("--limit", type=int, help="only the first questions")
    asked = parser.parse_args()
    benchmark = open_benchmark("reference")
    samples = [sample for sample in benchmark.samples if sample.category == asked.family][: asked.limit]
    cells = list(measure(open_model(asked.model), samples, benchmark, asked.budgets.split(",")))
    for line in table(cells, samples):
        print(line)


if __name__ == "__main__":
    main()
