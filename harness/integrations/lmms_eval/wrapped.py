"""Their tasks on their own model classes: their template and pixels, with `generate` pruned.

Their classes cut the answer off behind the caller's ids, and inside `harness.prune` generate returns exactly those.
Only such runs may stand beside the numbers that lmms-eval publishes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from harness.flops.prefill import Cost, dims_of
from harness.integrations.lmms_eval.native import pictures_of
from harness.models.loading import OpenModel, adopt
from harness.models.prune import Pruning, prune
from harness.models.registry import parted, resolve
from harness.models.replacing import replaced
from harness.records.errors import EnvironmentProblem, HarnessError, UsageError, nearest
from harness.records.records import Sample, sample_seed
from harness.request.opening import Cell
from harness.run.accuracy import Generation
from methods import build
from methods.base import Budget

WRAP = "lmms-eval"  # begins the name of the image backend of such a model; their class follows, behind a colon


@dataclass(frozen=True)
class Wrapped(OpenModel):
    """The model of one of their classes, `inner`, which many pruners share. It is not timed: their class prepares."""

    inner: Any

    is_timed: ClassVar[bool] = False


def open_wrapped(name: str, their_name: str, *, dtype: str, device: str, attention: str) -> Wrapped:
    """Their class of that name on a model of ours by name. Raises UsageError, EnvironmentProblem, UnknownModel."""
    from lmms_eval.models import get_model

    check_class(their_name)
    source, revision = parted(resolve(name))
    wanted = {
        "pretrained": source, "revision": revision, "device": device, "device_map": device, "batch_size": 1,
        "dtype": dtype, "attn_implementation": attention,
    }  # fmt: skip
    try:
        kind = get_model(their_name)
        known = inspect.signature(kind.__init__).parameters
        inner = kind(**{key: value for key, value in wanted.items() if key in known})
    except ImportError as error:
        why = next(line for line in [*str(error).splitlines(), "an import fails"] if line)
        raise EnvironmentProblem(f"lmms-eval's {their_name} does not work here: {why}; install that") from error
    inner.model.eval()
    adopted = adopt(name, inner.model, _processor_of(inner), f"{WRAP}:{their_name}")
    return Wrapped(**vars(adopted), inner=inner)


def check_class(their_name: str) -> None:
    """Raise UsageError unless lmms-eval has a model class of that name."""
    from lmms_eval.models import MODEL_REGISTRY_V2

    known = MODEL_REGISTRY_V2.list_model_names()
    if their_name not in known:
        near = nearest(their_name, known)
        raise UsageError(f"lmms-eval has no model class {their_name!r}; nearest: {near}. Write {WRAP}:CLASS")


def _processor_of(inner: Any) -> Any:
    for place in ("processor", "_image_processor"):
        if hasattr(getattr(inner, place, None), "tokenizer"):
            return getattr(inner, place)
    raise UsageError(f"{type(inner).__name__} has no processor of transformers'; it cannot be wrapped")


@contextmanager
def inside(model: Wrapped, cell: Cell) -> Iterator[Inside]:
    """What answers their requests under the pruner of a cell; the model's own `generate` comes back behind it."""
    pruner = cell.pruner or build("full")
    cost = Cost(dims_of(model.family.model.config), cell.pruner, model.family.info)
    with prune(model.model, pruner, str(cell.request.budget), processor=model.processor) as pruning:
        yield Inside(model, pruning, cost, cell.request.seed)


@dataclass(frozen=True)
class Inside:
    """Their class inside a `prune` block. problems: what its `generate` raised for the question at hand."""

    model: Wrapped
    pruning: Pruning
    cost: Cost
    seed: int
    problems: list[BaseException] = field(default_factory=list)

    def say(self, request: Any, doc: Mapping[str, Any], sample: Sample) -> Generation:
        """What their class answers. Raises what it swallowed: some of them answer "" to any exception."""
        inner, (doc_id, task, split) = self.model.inner, request.args[3:6]
        inner.task_dict = {task: {split: {doc_id: doc}}}
        self.pruning.latest, self.pruning.seed = (), sample_seed(self.seed, sample.id)
        self.problems.clear()
        with replaced(inner.model, "generate", partial(self._generate, inner.model.generate)):
            [answer] = inner.generate_until([request])
        for problem in self.problems:
            raise problem
        text = answer if isinstance(answer, str) else answer.text
        if self.pruning.latest:
            return self._measured(text)
        if next(pictures_of(doc), None) is not None:
            raise HarnessError(f"{type(inner).__name__} showed its model no picture; it cannot be wrapped")
        return Generation(text, (0,) * len(self.model.family.decoder.layers))

    def _generate(self, pruned: Callable[..., Any], *args: Any, **arguments: Any) -> Any:
        try:
            return pruned(*args, **arguments)
        except BaseException as problem:  # their class may swallow it; it is raised again above
            self.problems.append(problem)
            raise

    def _measured(self, text: str) -> Generation:
        if len(self.pruning.latest) != 1:
            raise HarnessError(
                f"{type(self.model.inner).__name__} asked several prompts at once; budgets are kept for one"
            )
        [trace], kind = self.pruning.latest, self.pruning.budget.kind
        asked = None if kind == "native" else self.pruning.budget.ask(trace.shape.n)
        plan = self.pruning.engine.plan(Budget(kind, asked or 0), trace.shape)
        return Generation.measured(
            text,
            trace.realised,
            full_tokens=trace.shape.n,
            asked_tokens=asked,
            flops=self.cost.by_stage(trace.realised, plan),
        )
