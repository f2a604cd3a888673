"""What a request opens, and the cells that it asks for: the method's and those of its controls."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.benchmarks import Benchmark, open_benchmark
from harness.benchmarks.targets import recall_of_target
from harness.budget.planning import Planner
from harness.flops.prefill import Cost, ModelDims, dims_of
from harness.models.engine import Engine
from harness.models.loading import OpenModel, open_model
from harness.records.errors import HarnessError, UndecodableImage
from harness.records.provenance import without_home
from harness.records.records import Realised, Record, RunSpec, Sample
from harness.request.options import ModelOptions
from harness.request.request import Request
from methods import build
from methods.base import Plan, Pruner, PruningError

if TYPE_CHECKING:
    from harness.models.engine import Engine
    from harness.models.loading import OpenModel


@dataclass(frozen=True)
class Sources:
    """Where models and benchmarks come from; tests bring their own."""

    model: Callable[..., OpenModel] = open_model
    benchmark: Callable[..., Benchmark] = open_benchmark


@dataclass(frozen=True)
class Cell:
    """One run to do: its request, its pruner (None: unpruned), its identity."""

    request: Request
    pruner: Pruner | None
    spec: RunSpec

    @property
    def title(self) -> str:
        return "unpruned" if self.pruner is None else f"{self.spec.method} at {self.request.budget}"


@dataclass(frozen=True)
class Bench:
    """An open model and an open benchmark, which all cells of a request share."""

    model: OpenModel
    benchmark: Benchmark
    samples: Sequence[Sample]

    @property
    def dims(self) -> ModelDims:
        return dims_of(self.model.family.model.config)

    def cell(self, request: Request) -> Cell:
        """The cell of a request. Raises UnknownMethod."""
        pruner = build(request.method, **request.settings)
        spec = request.specify(pruner, self.model, self.benchmark, self.samples)
        return Cell(request, None if request.is_full else pruner, spec)

    def metrics(self, records: Iterable[Record]) -> dict[str, float]:
        """What the benchmark reports of a run, those that no row has a say in left out."""
        return {name: value for name, value in self.benchmark.metrics(records).items() if not math.isnan(value)}

    def answering(self, cell: Cell) -> Answering:
        """What the accuracy pass of a cell needs."""
        engine = self.model.engine(cell.pruner)
        cost = Cost(self.dims, cell.pruner, self.model.family.info)
        planner = Planner(engine, cell.request.budget, cost.planned_ratio)
        return Answering(self.model, engine, planner, self.benchmark, cell.request.seed, cost.by_stage)

    def subject(self, cell: Cell) -> Subject:
        """What a timing session of a cell needs."""
        return Subject(self.answering(cell), self.model.engine(None), self.samples, self.dims)


def open_named(sources: Sources, request: Request) -> Benchmark:
    """The benchmark of a request. Raises UnknownBenchmark, BenchmarkUnavailable, CorruptBenchmark."""
    where = {"data_dir": request.data_dir and Path(request.data_dir), "stream": request.stream}
    return sources.benchmark(request.benchmark, **{key: value for key, value in where.items() if value})


def open_bench(request: Request, sources: Sources | None = None) -> Bench:
    """Open what a request names, cheapest first: a wrong benchmark or method stops before weights are read."""
    sources = sources or Sources()
    benchmark = open_named(sources, request)
    build(request.method, **request.settings)
    model = sources.model(request.model, **request.part(ModelOptions))
    return Bench(model, benchmark, benchmark.samples[: request.limit])


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
        error=without_home(error),
        seconds=seconds,
    )


@dataclass(frozen=True)
class Subject:
    """What one session times: `answering` is the method's, `base` the unpruned engine of the same model."""

    answering: Answering
    base: Engine
    samples: Sequence[Sample]
    dims: ModelDims
