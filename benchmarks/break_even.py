"""From how many visual tokens on does a method pay? `python benchmarks/break_even.py --method divprune [--budget 50%]`.

Times a method against no pruning on pictures of several sizes, in pairs, and prints for each number of visual tokens
what selecting costs and what it saves: medians in milliseconds, indicative on a CPU.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from PIL import Image

from harness.budget.planning import Planner
from harness.budget.spec import BudgetSpec
from harness.flops.dims import dims_of
from harness.flops.prefill import Cost
from harness.latency.break_even import break_even
from harness.latency.clock import StageClock, default_backend
from harness.latency.protocol import Protocol, measure_pairs
from harness.models.engine import Engine
from harness.models.families.family import Inputs
from harness.models.loading import open_model
from methods import build
from methods.base import Plan


def prefill(engine: Engine, inputs: Inputs, plan: Plan, clock: StageClock) -> None:
    engine.prefill(inputs, plan, clock=clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="divprune")
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--model", default="reference-a")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sides", type=int, nargs="+", default=[96, 160, 256, 384], help="sides of the pictures")
    parser.add_argument("--pairs", type=int, default=15)
    asked = parser.parse_args()
    model, pruner = open_model(asked.model, device=asked.device), build(asked.method)
    engine, base = model.engine(pruner), model.engine(None)
    cost = Cost(dims_of(model.family.model.config), pruner, model.family.info)
    planner = Planner(engine, BudgetSpec.parse(asked.budget), cost.planned_ratio)
    arms = {}
    for side in asked.sides:
        picture = np.random.default_rng(side).integers(0, 255, (side, side, 3), dtype=np.uint8)
        inputs = model.prepare([Image.fromarray(picture)], "number on the red sign?")
        plan, _ = planner.plan(inputs.shape, inputs.text)
        full = Plan({}, (inputs.shape.n,) * inputs.shape.llm_layers)
        rows, columns = inputs.shape.grids[0]
        both = (partial(prefill, base, inputs, full), partial(prefill, engine, inputs, plan))
        arms[f"{rows}x{columns}+{inputs.text_tokens}"] = both
    clock = StageClock(default_backend(asked.device))
    rows = measure_pairs(arms, Protocol(pairs=asked.pairs), clock, "break-even")
    print("visual tokens   select ms   saved ms   pays")
    for one in break_even(rows):
        print(f"{one.n:13d} {one.select_ms:11.2f} {one.saved_ms:10.2f}   {'yes' if one.pays else 'no'}")


if __name__ == "__main__":
    main()
