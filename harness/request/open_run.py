"""A method on an open model and benchmark: what answering a sample and timing a session need.

A run's code identity walks the imports of this file (harness/records/provenance.py). What opens, logs, stores or times
is therefore not imported here, and what answers is imported for good, not for the type checker alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from harness.benchmarks.base import Benchmark
from harness.budget.planning import Planner
from harness.budget.spec import BudgetSpec
from harness.flops.prefill import Cost, ModelDims, dims_of
from harness.models.engine import Engine
from harness.models.families.family import Inputs
from harness.models.loading import OpenModel
from harness.records.errors import UndecodableImage
from harness.records.records import Sample
from methods.base import Pruner

if TYPE_CHECKING:
    from harness.request.opening import Bench


@dataclass(frozen=True)
class OpenRun:
    """A method at a budget on an open model and benchmark: what answering a sample and timing a session need.

    pruner: None for unpruned. seed: the run's.
    """

    bench: Bench
    pruner: Pruner | None
    budget: BudgetSpec
    seed: int

    @property
    def model(self) -> OpenModel:
        return self.bench.model

    @property
    def benchmark(self) -> Benchmark:
        return self.bench.benchmark

    @cached_property
    def engine(self) -> Engine:
        """The model under the pruner."""
        return self.model.engine(self.pruner)

    @cached_property
    def base(self) -> Engine:
        """The same model unpruned."""
        return self.model.engine(None)

    @cached_property
    def dims(self) -> ModelDims:
        return dims_of(self.model.family.model.config)

    @cached_property
    def cost(self) -> Cost:
        """FLOPs of the pruner on the model."""
        return Cost(self.dims, self.pruner, self.model.family.info)

    @cached_property
    def planner(self) -> Planner:
        return Planner(self.engine, self.budget, self.cost.planned_ratio)

    def check_feasible(self) -> None:
        """Plan the first sample whose images can be read, before anything runs. Raises BudgetInfeasible."""
        first = self.first_inputs()
        if first is not None:
            self.planner.plan(first[1].shape, first[1].text)

    def first_inputs(self) -> tuple[Sample, Inputs] | None:
        """The first sample whose images can be read, as the engine takes it; None where none shows an image."""
        for sample in self.bench.samples:
            try:
                inputs = self.benchmark.inputs(sample, self.model)
            except UndecodableImage:
                continue
            return None if inputs is None else (sample, inputs)
        return None
