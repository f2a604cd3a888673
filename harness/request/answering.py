"""One sample answered: image and question in, a record out. All that an accuracy pass runs is imported from here.

A run's code identity walks these imports (harness/records/provenance.py). What opens, logs, stores or times is
therefore not imported here, and what answers is imported for good, not for the type checker alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.benchmarks.base import Benchmark
from harness.benchmarks.targets import recall_of_target
from harness.budget.planning import Planner
from harness.budget.spec import BudgetSpec
from harness.flops.prefill import Cost, dims_of
from harness.models.engine import Engine
from harness.models.loading import OpenModel
from harness.records.errors import HarnessError, UndecodableImage
from harness.records.records import Realised, Record, Sample
from methods.base import Plan, Pruner, PruningError


@dataclass(frozen=True)
class Answering:
    """What answering one sample needs. flops: what ran, under which plan -> FLOPs by stage, as `Record.flops`."""

    model: OpenModel
    engine: Engine
    planner: Planner
    benchmark: Benchmark
    seed: int
    flops: Callable[[Realised, Plan], Mapping[str, int]]

    def answer(self, sample: Sample) -> Record:
        """The record of one sample. An image that cannot be decoded gives an error row: score 0, and it counts.

        Raises BudgetInfeasible, or HarnessError naming the sample when the method contradicts itself.
        """
        started = time.perf_counter()
        try:
            images = self.benchmark.load_images(sample)
        except UndecodableImage as error:
            return _error_row(sample, str(error), time.perf_counter() - started)
        inputs = self.model.prepare(images, self.benchmark.prompt(sample))
        plan, asked = self.planner.plan(inputs.shape, inputs.text)
        try:
            tokens, trace = self.engine.generate(
                inputs,
                plan,
                seed=sample_seed(self.seed, sample.id),
                max_new_tokens=self.benchmark.max_new_tokens,
                do_sample=False,
            )
        except PruningError as error:
            raise HarnessError(f"sample {sample.id}: {error}") from error
        realised = trace.realised
        prediction = self.model.decode(tokens[0, inputs.text_tokens + realised.entering[0] :])
        return Record(
            sample_id=sample.id,
            cluster=sample.cluster,
            category=sample.category,
            answer=sample.answer,
            prediction=prediction,
            score=self.benchmark.score(prediction, sample),
            full_tokens=inputs.shape.n,
            asked_tokens=asked,
            entering=realised.entering,
            kept=realised.kept,
            merged=realised.merged,
            recall_of_target=recall_of_target(sample.boxes, images[0].size, inputs.shape.grids[0], realised.kept),
            seconds=time.perf_counter() - started,
            flops=self.flops(realised, plan),
        )


def answering_of(
    model: OpenModel, pruner: Pruner | None, budget: BudgetSpec, benchmark: Benchmark, seed: int
) -> Answering:
    """What answering a benchmark needs, of a model that is open. pruner: None leaves every token."""
    engine = model.engine(pruner)
    cost = Cost(dims_of(model.family.model.config), pruner, model.family.info)
    planner = Planner(engine, budget, cost.planned_ratio)
    return Answering(model, engine, planner, benchmark, seed, cost.by_stage)


def sample_seed(seed: int, sample_id: str) -> int:
    """A 32-bit seed that depends on the run's seed and the sample alone, not on the order of the samples."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()[:4], "big")


def _error_row(sample: Sample, error: str, seconds: float) -> Record:
    return Record(
        sample_id=sample.id,
        cluster=sample.cluster,
        category=sample.category,
        answer=sample.answer,
        prediction="",
        score=0.0,
        full_tokens=0,
        asked_tokens=None,
        entering=(),
        error=error,
        seconds=seconds,
    )
