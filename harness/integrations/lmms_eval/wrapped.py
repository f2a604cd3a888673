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
from typing import Any

from harness.flops.prefill import Cost, dims_of
from harness.integrations.lmms_eval.answer import Said, pictures_of
from harness.integrations.lmms_eval.native import Answer
from harness.models.loading import OpenModel, adopt
from harness.models.prune import Pruning, prune
from harness.models.registry import parted, resolve
from harness.models.replacing import replaced
from harness.records.errors import EnvironmentProblem, HarnessError, UsageError
from harness.request.opening import Cell
from methods import build
from methods.base import Budget


@dataclass(frozen=True)
class Wrapped:
    """One of their classes with its model, which many pruners share."""

    inner: Any
    model: OpenModel

    @property
    def is_simple(self) -> bool:
        return self.inner.is_simple

    @contextmanager
    def answering(self, cell: Cell) -> Iterator[Answer]:
        """What answers requests under the pruner of a cell; the model's own `generate` comes back behind it."""
        request, model = cell.request, self.model
        pruner = cell.pruner or build("full")
        cost = Cost(dims_of(model.family.model.config), cell.pruner, model.family.info)
        with prune(model.model, pruner, str(request.budget), processor=model.processor) as pruning:
            yield _Answering(self.inner, model, pruning, cost)


def open_wrapped(name: str, their_name: str, dtype: str, device: str, attention: str) -> Wrapped:
    """Their class of that name on a model of ours by name. Raises UsageError, EnvironmentProblem, UnknownModel."""
    from lmms_eval.models import MODEL_REGISTRY_V2, get_model

    if their_name not in MODEL_REGISTRY_V2.list_model_names():
        raise UsageError(f"lmms-eval has no model class {their_name!r}; --prompt-as names the one to wrap")
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
    return Wrapped(inner, adopt(name, inner.model, _processor_of(inner), f"lmms-eval:{their_name}"))


def _processor_of(inner: Any) -> Any:
    for place in ("processor", "_image_processor"):
        if hasattr(getattr(inner, place, None), "tokenizer"):
            return getattr(inner, place)
    raise UsageError(f"{type(inner).__name__} has no processor of transformers'; it cannot be wrapped")


@dataclass(frozen=True)
class _Answering:
    inner: Any
    model: OpenModel
    pruning: Pruning
    cost: Cost
    problems: list[BaseException] = field(default_factory=list)

    def __call__(self, request: Any, doc: Mapping[str, Any], seed: int) -> Said:
        """What their class answers. Raises what it swallowed: some of them answer "" to any exception."""
        doc_id, task, split = request.args[3:6]
        self.inner.task_dict = {task: {split: {doc_id: doc}}}
        self.pruning.latest, self.pruning.seed = (), seed
        self.problems.clear()
        with replaced(self.inner.model, "generate", partial(self._generate, self.inner.model.generate)):
            [answer] = self.inner.generate_until([request])
        for problem in self.problems:
            raise problem
        text = answer if isinstance(answer, str) else answer.text
        if self.pruning.latest:
            return self._measured(text)
        if next(pictures_of(doc), None) is not None:
            raise HarnessError(f"{type(self.inner).__name__} showed its model no picture; it cannot be wrapped")
        return Said(text, (0,) * len(self.model.family.decoder.layers))

    def _generate(self, pruned: Callable[..., Any], *args: Any, **arguments: Any) -> Any:
        try:
            return pruned(*args, **arguments)
        except BaseException as problem:  # their class may swallow it; it is raised again above
            self.problems.append(problem)
            raise

    def _measured(self, text: str) -> Said:
        if len(self.pruning.latest) != 1:
            raise HarnessError(f"{type(self.inner).__name__} asked several prompts at once; budgets are kept for one")
        trace = self.pruning.latest[0]
        asked = None if self.pruning.budget.kind == "native" else self.pruning.budget.ask(trace.shape.n)
        kind = self.pruning.budget.kind
        plan = self.pruning.engine.plan(Budget(kind, asked or 0), trace.shape)
        return Said(
            text=text,
            entering=trace.realised.entering,
            full_tokens=trace.shape.n,
            asked_tokens=asked,
            kept=trace.realised.kept,
            merged=trace.realised.merged,
            flops=self.cost.by_stage(trace.realised, plan),
            prompt_tokens=trace.text_tokens + trace.realised.entering[0],
        )
