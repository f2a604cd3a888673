"""What a request opens, and the cells that it asks for: the method's and those of its controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.benchmarks import Benchmark, open_benchmark
from harness.flops.prefill import ModelDims, dims_of
from harness.models.engine import Engine
from harness.models.loading import OpenModel, open_model
from harness.records.records import Record, Sample
from harness.records.run_spec import RunSpec
from harness.request.answering import Answering, answering_of
from harness.request.options import ModelOptions
from harness.request.request import Request
from methods import build
from methods.base import Pruner


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
        return answering_of(self.model, cell.pruner, cell.request.budget, self.benchmark, cell.request.seed)

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
class Subject:
    """What one session times: `answering` is the method's, `base` the unpruned engine of the same model."""

    answering: Answering
    base: Engine
    samples: Sequence[Sample]
    dims: ModelDims
