"""From the words of a grid to the cells of a sweep: methods x budgets x models x benchmarks x seeds, and controls."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.benchmarks import open_benchmark
from harness.budget.spec import BudgetError, BudgetSpec
from harness.latency.protocol import Protocol
from harness.models.loading import DTYPES, resolve
from harness.records.controls import CONTROLS
from harness.records.errors import UsageError, nearest
from harness.records.records import FULL
from harness.request.request import Request
from harness.request.settings import parse_settings
from methods import build, get, names

SEEDS = 3  # of stochastic methods
ALL = "all"


@dataclass(frozen=True)
class GridWords:
    """A grid as it was written, in a TOML file or as flags. seeds: how many, or which. settings: method -> its own.
    data_dir: where published data sets lie offline. stream: whether they are read in place.

    timing: whether a timing pass follows; pairs, sessions and minutes bound it.
    """

    methods: tuple[str, ...] = ()
    budgets: tuple[int | float | str, ...] = ()
    models: tuple[str, ...] = ("reference-a",)
    benchmarks: tuple[str, ...] = ("reference-quick",)
    data_dir: str | None = None
    stream: bool = False
    seeds: int | tuple[int, ...] = SEEDS
    controls: bool = True
    limit: int | None = None
    dtype: str = "float32"
    device: str = "auto"
    attention: str = "sdpa"
    image_backend: str = "pil"
    timing: bool = True
    pairs: int | None = None
    sessions: int | None = None
    minutes: float | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One cell of a sweep. timing: None where it is answered only."""

    request: Request
    timing: Protocol | None = None


def read_grid(path: Path) -> dict[str, Any]:
    """The keys of a TOML file, which are the fields of `GridWords`. Raises UsageError naming the nearest keys."""
    try:
        written = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise UsageError(f"cannot read the grid {path}: {problem}") from problem
    kinds = {one.name: one.type for one in fields(GridWords)}
    for key in written:
        if key not in kinds:
            raise UsageError(f"{path} has an unknown key {key!r}; nearest: {nearest(key, kinds)}")
    hints = {key: f"{key}={value!r}" for key, value in written.items() if key != "settings"}
    return {**parse_settings(str(path), GridWords, hints.values()), **_settings(path, written)}


def entries_of(words: GridWords, device: str, timing: Protocol | None) -> list[Entry]:
    """Every cell, without repetition: those of one model together, of one benchmark within it, no pruning first.

    device: what words.device means here. timing: None leaves the timing pass out. It is done for the first seed of
    each cell: latency does not depend on the seed. Raises UsageError or UnknownMethod with the nearest names.
    """
    _check(words)
    budgets = tuple(dict.fromkeys(_budget(one) for one in words.budgets))
    seeds = tuple(range(words.seeds)) if isinstance(words.seeds, int) else words.seeds
    found: dict[Any, Entry] = {}
    for model in dict.fromkeys(words.models):
        for benchmark in dict.fromkeys(words.benchmarks):
            shared = {
                "model": model, "benchmark": benchmark, "limit": words.limit, "dtype": words.dtype, "device": device,
                "attention": words.attention, "image_backend": words.image_backend, "data_dir": words.data_dir,
                "stream": words.stream,
            }  # fmt: skip
            for request in _requests(_methods(words), budgets, seeds, shared):
                timed = not request.is_full and request.seed == seeds[0]
                found.setdefault(_key(request), Entry(request, timing if timed else None))
    return list(found.values())


def _check(words: GridWords) -> None:
    """Raise UsageError for what no cell could be made of."""
    if not words.methods or not words.budgets:
        raise UsageError("a sweep needs methods and budgets, e.g. --methods all --budgets 50%,25%")
    if words.seeds in (0, ()) or min(words.seeds if isinstance(words.seeds, tuple) else (words.seeds,)) < 0:
        raise UsageError(f"seeds is a number of seeds, at least 1, or a list of them, got {words.seeds}")
    for name in ("limit", "pairs", "sessions", "minutes"):
        value = getattr(words, name)
        if value is not None and value <= 0:
            raise UsageError(f"{name} must be above 0, got {value}")
    if words.dtype not in DTYPES:
        raise UsageError(f"unknown dtype {words.dtype!r}; use one of {', '.join(DTYPES)}")
    for model in words.models:
        resolve(model)
    for benchmark in words.benchmarks:
        open_benchmark(benchmark, None if words.data_dir is None else Path(words.data_dir), words.stream)


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


def _settings(path: Path, written: Mapping[str, Any]) -> dict[str, Any]:
    settings = written.get("settings")
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(one, dict) for one in settings.values()):
        raise UsageError(f"{path}: settings are tables, one a method, e.g. [settings.fastv]")
    return {"settings": settings}


def _budget(words: int | float | str) -> BudgetSpec:
    try:
        return BudgetSpec.parse(words)
    except BudgetError as error:
        raise UsageError(str(error)) from error


def _key(request: Request) -> Any:
    """Requests hold a mapping, so they cannot be keys themselves."""
    return (*(value if key != "settings" else repr(value) for key, value in vars(request).items()),)
