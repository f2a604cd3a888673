"""What a user asked for, and the RunSpec that it becomes once model and benchmark are open."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.benchmarks.base import Benchmark
from harness.budget.spec import BudgetSpec
from harness.records.errors import UsageError
from harness.records.provenance import code_of, recorded_method, sample_ids_hash, without_home
from harness.records.records import FULL, Sample
from harness.records.run_spec import RunSpec
from harness.request.options import CellWords, SampleOptions
from harness.request.settings import parse_settings
from methods import get

if TYPE_CHECKING:
    from harness.models.loading import OpenModel
    from methods.base import Pruner


@dataclass(frozen=True)
class Request(SampleOptions):
    """One cell to run. method: NAME, NAME:PRESET or a path; settings override the preset's; device: a real one."""

    method: str
    budget: BudgetSpec
    model: str = "reference-a"
    benchmark: str = "reference-quick"
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = field(default="cpu", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_backend.startswith("lmms-eval") and not self.benchmark.startswith("lmms:"):
            raise UsageError(
                f"a model class of lmms-eval answers its own tasks alone, lmms:TASK, got the benchmark "
                f"{self.benchmark}; use the image backend pil or torchvision"
            )

    @classmethod
    def of(cls, words: CellWords) -> Request:
        """The cell that words ask for, on this machine. Raises UsageError, UnknownMethod."""
        name = words.method if ".py" in words.method else words.method.partition(":")[0]
        return cls(
            words.method,
            words.asked_budget(),
            f"{words.model}@{words.revision}" if words.revision else words.model,
            words.benchmark,
            parse_settings(name, get(name), words.settings or ()),
            words.seed,
            **words.resolved().part(SampleOptions),
        )

    @property
    def is_full(self) -> bool:
        """Whether this is the control that prunes nothing."""
        return self.method == FULL

    def control(self, name: str) -> Request:
        """The same cell with a control for its method; the unpruned one is the same at every budget and seed."""
        if name == FULL:
            return replace(self, method=FULL, settings={}, budget=BudgetSpec("layer_average", 1.0), seed=0)
        return replace(self, method=name, settings={})

    def specify(self, pruner: Pruner, model: OpenModel, benchmark: Benchmark, samples: Sequence[Sample]) -> RunSpec:
        """The identity of this run."""
        name, _, preset = (self.method, "", "") if ".py" in self.method else self.method.partition(":")
        return RunSpec(
            method=recorded_method(name),
            settings=without_home(json.loads(json.dumps(pruner.settings()))),  # as they are read back: lists for tuples
            model=without_home(model.name),
            model_revision=model.revision,
            benchmark=benchmark.name,
            benchmark_revision=benchmark.revision,
            budget_kind=self.budget.kind,
            budget_value=self.budget.value,
            seed=self.seed,
            limit=self.limit,
            sample_ids=sample_ids_hash([sample.id for sample in samples]),
            dtype=model.dtype,
            attention=model.attention,
            image_backend=model.image_backend,
            device=self.device,
            code=code_of(name, model.model.config.model_type, benchmark.name) or "",
            preset=preset,
            adapter=model.adapter_revision(pruner),
        )
