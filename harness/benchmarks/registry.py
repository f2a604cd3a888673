"""Finding benchmarks by name: the embedded suite, the declarations in `papers/`, a user's own file."""

from __future__ import annotations

from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any

from harness.benchmarks import papers
from harness.benchmarks.base import Benchmark
from harness.benchmarks.declaration import Declaration
from harness.benchmarks.declared import open_declared
from harness.benchmarks.embedded import open_suite
from harness.benchmarks.own import ENDINGS, open_own
from harness.records.errors import BenchmarkUnavailable, UnknownBenchmark, nearest
from harness.reference.paths import SUITE

EMBEDDED_SUITES = MappingProxyType(
    {
        "reference": partial(open_suite, "reference", SUITE, quick=False),
        "reference-quick": partial(open_suite, "reference-quick", SUITE, quick=True),
    }
)


@cache
def declarations() -> MappingProxyType[str, Declaration]:
    """Name -> declaration of every published benchmark. Raises AssertionError when two share a name."""
    modules = [import_module(f"{papers.__name__}.{found.name}") for found in iter_modules(papers.__path__)]
    listed = [declaration for module in modules for declaration in module.DECLARATIONS]
    found = {declaration.name: declaration for declaration in listed}
    assert len(found) == len(listed), "two declarations share a name"
    return MappingProxyType(found)


def names() -> list[str]:
    """The names of all benchmarks, sorted."""
    return sorted([*EMBEDDED_SUITES, *declarations()])


def describe(name: str) -> dict[str, Any]:
    """What is known of a benchmark without a network. Raises UnknownBenchmark."""
    if name in EMBEDDED_SUITES:
        return _described(EMBEDDED_SUITES[name]())
    _check_name(name)
    return declarations()[name].described()


def is_own(name: str) -> bool:
    """Whether a benchmark's name is a path: "./folder", "mine.jsonl"."""
    return "/" in name or name.endswith(ENDINGS)


def open_benchmark(name: str, data_dir: Path | None = None, stream: bool = False) -> Benchmark:
    """The benchmark of that name, or a user's own by its path. data_dir: where published data sets lie offline.

    stream: read published splits in place instead of storing them. Raises UnknownBenchmark with the nearest names,
    BenchmarkUnavailable, CorruptBenchmark.
    """
    if name in EMBEDDED_SUITES:
        return EMBEDDED_SUITES[name]()
    if is_own(name):
        return open_own(Path(name))
    _check_name(name)
    if find_spec("datasets") is None:
        raise BenchmarkUnavailable(
            f"{name} is read with the package datasets: pip install 'visual-token-pruning[benchmarks]'"
        )
    return open_declared(declarations()[name], data_dir, stream)


def _check_name(name: str) -> None:
    if name not in declarations():
        raise UnknownBenchmark(
            f"no benchmark {name!r}; nearest: {nearest(name, names())}. `harness list benchmarks` names them all; a "
            "file of your own is given by its path, ./mine.jsonl"
        )


def _described(opened: Benchmark) -> dict[str, Any]:
    return {
        "name": opened.name,
        "title": opened.title,
        "ids": [],
        "revision": opened.revision,
        "config": None,
        "split": "quick" if opened.name.endswith("quick") else "all",
        "columns": [],
        "samples": len(opened.samples),
        "metrics": ["exact_match"],
        "answers": "text",
        "chance": {category: round(share, 4) for category, share in opened.chance.items()},
        "cluster": "image",
        "licence": opened.licence,
        "rule_of": "ours",
    }
