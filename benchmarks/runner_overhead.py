"""What the runner adds to an accuracy pass: processor time over a bare loop of the same model calls.

    OMP_NUM_THREADS=1 python benchmarks/runner_overhead.py [--method fastv] [--blocks 40]

Unit: ratio of the thread's processor time, runner / bare loop. Both answer the same block of the quick split, one after
the other, in turns AB and BA. The bare loop opens the picture, prepares the inputs, generates and decodes, under plans
made beforehand. The runner is `answer_all`: planning, scores, FLOPs, what was kept, the checksummed log on the disk.
"Once a run" is what does not grow with each answer: opening the log, figures with their intervals, the store.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch

from harness.budget.spec import BudgetSpec
from harness.models.quiet import quiet_transformers
from harness.records.records import Sample, sample_seed
from harness.request.open_run import OpenRun
from harness.request.opening import Bench, Cell, open_bench
from harness.request.request import Request
from harness.run.accuracy import answer, pruned
from harness.run.runner import Story, answer_all, environment
from harness.store.database import Store
from harness.store.log_writer import RunLog
from methods.base import Plan

BLOCK = 8  # samples
LIMIT_RATIO = 1.05


class LooksAway:
    """A watcher that shows nothing."""

    def begins(self, title: str, total: int, done: int) -> None: ...

    def advanced(self, steps: int = 1) -> None: ...

    def ends(self) -> None: ...


def bare(opened: OpenRun, plans: dict[str, Plan], block: Sequence[Sample]) -> float:
    """Processor seconds of the model calls alone."""
    benchmark, model = opened.bench.benchmark, opened.bench.model
    began = time.thread_time()
    for sample in block:
        inputs = benchmark.inputs(sample, model)
        tokens, trace = opened.engine.generate(
            inputs,
            plans[sample.id],
            seed=sample_seed(opened.seed, sample.id),
            max_new_tokens=benchmark.max_new_tokens,
            do_sample=False,
        )
        model.decode(tokens[0, inputs.text_tokens + trace.realised.entering[0] :])
    return time.thread_time() - began


def run(opened: OpenRun, log: RunLog, block: Sequence[Sample]) -> float:
    """Processor seconds of the same samples by the runner."""
    began = time.thread_time()
    answer_all(partial(answer, opened), block, log, LooksAway(), lambda: False)
    return time.thread_time() - began


def plans_of(opened: OpenRun, samples: Sequence[Sample]) -> dict[str, Plan]:
    """The plan of each sample."""
    plans = {}
    for sample in samples:
        inputs = opened.bench.benchmark.inputs(sample, opened.bench.model)
        plans[sample.id] = opened.planner.plan(inputs.shape, inputs.text)[0]
    return plans


def ratios(bench: Bench, cell: Cell, path: Path, blocks: int) -> tuple[list[float], list[float]]:
    """Runner / bare loop of each block, and the bare seconds a sample."""
    opened = bench.open(cell)
    samples = bench.samples[: blocks * BLOCK]
    plans = plans_of(opened, samples)
    found, pace = [], []
    with RunLog.open(path, cell.spec, environment()) as log:
        for number in range(0, len(samples), BLOCK):
            block = samples[number : number + BLOCK]
            arms = [partial(bare, opened, plans, block), partial(run, opened, log, block)]
            order = (0, 1) if (number // BLOCK) % 2 else (1, 0)
            seconds = {arm: arms[arm]() for arm in order}
            found.append(seconds[1] / seconds[0])
            pace.append(seconds[0] / len(block))
    return found, pace


def once_a_run(bench: Bench, cell: Cell, store: Store) -> float:
    """Processor seconds of finishing a run whose answers are all there."""
    story = Story(bench, store, LooksAway(), lambda: False, environment())
    began = time.thread_time()
    story.reach(cell, pruned)
    return time.thread_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", nargs="+", default=["full", "fastv", "divprune", "quietprune"])
    parser.add_argument("--blocks", type=int, default=40, help=f"of {BLOCK} samples")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    quiet_transformers()
    print(f"{'method':<12}{'runner / bare':>15}{'middle half':>18}{'ms a sample':>13}{'once a run, s':>15}")
    for method in asked.method:
        budget = BudgetSpec.parse("100%" if method == "full" else "50%")
        bench = open_bench(Request(method, budget, limit=asked.blocks * BLOCK))
        cell = bench.cell(Request(method, budget, limit=asked.blocks * BLOCK))
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder) / "store.duckdb")
            ratios(bench, cell, Path(folder) / "warm-up.jsonl", 2)
            found, pace = ratios(bench, cell, store.log_path(cell.spec.run_id), asked.blocks)
            found.sort()
            quarter = len(found) // 4
            middle = f"{found[quarter]:.3f} to {found[-1 - quarter]:.3f}"
            over = "" if median(found) <= LIMIT_RATIO else f"  over {LIMIT_RATIO}"
            once = once_a_run(bench, cell, store)
            print(f"{method:<12}{median(found):>15.3f}{middle:>18}{1000 * median(pace):>13.1f}{once:>15.2f}{over}")


if __name__ == "__main__":
    main()
