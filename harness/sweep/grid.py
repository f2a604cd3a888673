"""From the words of a grid to the cells of a sweep: methods x budgets x models x benchmarks x seeds, and controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.benchmarks import open_benchmark
from harness.budget.spec import BudgetError, BudgetSpec
from harness.integrations.lmms_eval.installed import PREFIX
from harness.integrations.lmms_eval.opening import members
from harness.latency.protocol import Protocol
from harness.models.registry import resolve
from harness.records.controls import CONTROLS
from harness.records.errors import UsageError, nearest
from harness.records.records import FULL
from harness.request.options import SampleOptions
from harness.request.request import Request
from harness.request.settings import parse_settings
from harness.sweep.words import GridWords
from methods import build, get, names

ALL = "all"


@dataclass(frozen=True)
class GridCell:
    """One cell of a sweep. timing: None where it is answered only."""

    request: Request
    timing: Protocol | None = None


def entries_of(words: GridWords, timing: Protocol | None) -> list[GridCell]:
    """Every cell, without repetition: those of one model together, of one benchmark within it, no pruning first.

    words.device is a real one. timing: None leaves the timing pass out. It is done for the first seed of each cell:
    latency does not depend on the seed. Raises UsageError or UnknownMethod with the nearest names.
    """
    _check(words)
    budgets = tuple(dict.fromkeys(_budget(one) for one in words.budgets))
    seeds = tuple(range(words.seeds)) if isinstance(words.seeds, int) else words.seeds
    found: dict[Any, GridCell] = {}
    for model in dict.fromkeys(words.models):
        for benchmark in dict.fromkeys(name for one in words.benchmarks for name in _tasks(one, model, words)):
            shared = {"model": model, "benchmark": benchmark, **words.part(SampleOptions)}
            for request in _requests(_methods(words), budgets, seeds, shared):
                timed = not request.is_full and request.seed == seeds[0]
                found.setdefault(_key(request), GridCell(request, timing if timed else None))
    return list(found.values())


def _tasks(benchmark: str, model: str, words: GridWords) -> list[str]:
    """The benchmark; of a group of lmms-eval's, its tasks."""
    if not benchmark.startswith(PREFIX):
        return [benchmark]
    return members(Request(FULL, BudgetSpec("layer_average", 1.0), model, benchmark, **words.part(SampleOptions)))


def _check(words: GridWords) -> None:
    """Raise UsageError for what no cell could be made of."""
    if not words.methods or not words.budgets:
        raise UsageError("a sweep needs methods and budgets, e.g. --methods all --budgets 50%,25%")
    if words.seeds in (0, ()) or min(words.seeds if isinstance(words.seeds, tuple) else (words.seeds,)) < 0:
        raise UsageError(f"seeds is a number of seeds, at least 1, or a list of them, got {words.seeds}")
    for model in words.models:
        resolve(model)
    for benchmark in (one for one in words.benchmarks if not one.startswith(PREFIX)):
        open_benchmark(benchmark, words.data_dir and Path(words.data_dir), words.stream)


def _requests(
    methods: Mapping[str, Mapping[str, Any]],
    budgets: Sequence[BudgetSpec],
    seeds: Sequence[int],
    shared: Mapping[str, Any],
) -> Iterator[Request]:
    """The cells of one model and benchmark; `methods` may name a control, which has no native budget."""
    yield Request(FULL, budgets[0], **shared).control(FULL)
    for method, settings in methods.items():
        chosen = seeds if build(method, **settings).stochastic else seeds[:1]
        for budget in budgets:
            if budget.kind != "native" or method not in CONTROLS:
                yield from (Request(method, budget, settings=settings, seed=seed, **shared) for seed in chosen)


def _methods(words: GridWords) -> dict[str, Mapping[str, Any]]:
    """Method -> its settings, controls first."""
    named: list[str] = []
    for word in words.methods:
        named += [name for name in names() if name not in CONTROLS] if word == ALL else [word]
    chosen = [*(CONTROLS if words.controls else ()), *named]
    typed = {name: _typed(name, words.settings.get(name, {})) for name in chosen if name != FULL}
    unused = [name for name in words.settings if name not in typed]
    if unused:
        raise UsageError(f"settings for {unused[0]!r}, which is not in the sweep; nearest: {nearest(unused[0], typed)}")
    return typed


def _typed(method: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    build(method)  # says which presets there are
    base = method if ".py" in method else method.partition(":")[0]
    return parse_settings(base, get(base), [f"{key}={value!r}" for key, value in settings.items()])


def _budget(words: int | float | str) -> BudgetSpec:
    try:
        return BudgetSpec.parse(words)
    except BudgetError as error:
        raise UsageError(str(error)) from error


def _key(request: Request) -> Any:
    """Requests hold a mapping, so they cannot be keys themselves."""
    return (*(value if key != "settings" else repr(value) for key, value in vars(request).items()),)
