"""What a request opens, and the cells that it asks for: the method's and those of its controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from harness.benchmarks import Benchmark, open_benchmark
from harness.models.loading import OpenModel, open_model
from harness.records.records import BLIND, Record, Sample
from harness.records.run_spec import RunSpec
from harness.request.open_run import OpenRun
from harness.request.options import ModelOptions
from harness.request.request import Request
from methods import build
from methods.base import Pruner

Foreign = Mapping[str, Callable[[Request], Benchmark]]  # what a name begins with, before a colon -> its opener


@dataclass(frozen=True)
class Sources:
    """Where models and benchmarks come from; tests bring their own. foreign: benchmarks of other tools."""

    model: Callable[..., OpenModel] = open_model
    benchmark: Callable[..., Benchmark] = open_benchmark
    foreign: Foreign = field(default_factory=dict)

    def opened_once(self) -> Sources:
        """The same, keeping a model open for whoever asks for it again: a run, then its profile."""
        return replace(self, model=cache(self.model))


@dataclass(frozen=True)
class Cell:
    """One run to do: its request, its pruner (None: unpruned), its identity."""

    request: Request
    pruner: Pruner | None
    spec: RunSpec

    @property
    def title(self) -> str:
        if self.spec.benchmark.endswith(BLIND):
            return "without images"
        return "unpruned" if self.pruner is None else f"{self.spec.method} at {self.request.budget}"


@dataclass(frozen=True)
class Bench:
    """An open model and an open benchmark, which all cells of a request share.

    foreign: the openers that opened it, for another process that opens it again.
    """

    model: OpenModel
    benchmark: Benchmark
    samples: Sequence[Sample]
    foreign: Foreign = field(default_factory=dict)

    def cell(self, request: Request) -> Cell:
        """The cell of a request. Raises UnknownMethod."""
        pruner = build(request.method, **request.settings)
        spec = request.specify(pruner, self.model, self.benchmark, self.samples)
        return Cell(request, None if request.is_full else pruner, spec)

    def open(self, cell: Cell) -> OpenRun:
        """Open a cell for answering and timing."""
        return OpenRun(self, cell.pruner, cell.request.budget, cell.request.seed)

    def judged(self, records: Mapping[str, Record], folder: Path) -> tuple[dict[str, Record], dict[str, float]]:
        """All records of a run with their scores, in the order of the samples, and its metrics.

        folder: beside the run's log, for files that a benchmark's scoring writes. Metrics that no row has a say in
        are left out.
        """
        ordered = {sample.id: records[sample.id] for sample in self.samples}
        scored, metrics = self.benchmark.judge(ordered, folder)
        return dict(scored), {name: value for name, value in metrics.items() if not math.isnan(value)}


def open_named(sources: Sources, request: Request) -> Benchmark:
    """The benchmark of a request. Raises UnknownBenchmark, BenchmarkUnavailable, CorruptBenchmark."""
    foreign = sources.foreign.get(request.benchmark.partition(":")[0])
    if foreign is not None:
        return foreign(request)
    where = {"data_dir": request.data_dir and Path(request.data_dir), "stream": request.stream}
    return sources.benchmark(request.benchmark, **{key: value for key, value in where.items() if value})


def open_bench(request: Request, sources: Sources | None = None) -> Bench:
    """Open what a request names, cheapest first: a wrong benchmark or method stops before weights are read."""
    sources = sources or Sources()
    benchmark = open_named(sources, request)
    build(request.method, **request.settings)
    model = sources.model(request.model, **request.part(ModelOptions))
    return Bench(model, benchmark, benchmark.samples[: request.limit], sources.foreign)
