"""Finding benchmarks by name."""

from __future__ import annotations

from functools import partial

from harness.benchmarks.base import Benchmark
from harness.benchmarks.embedded import open_suite
from harness.errors import UnknownBenchmark, nearest
from harness.reference.paths import SUITE

_OPENERS = {
    "reference": partial(open_suite, "reference", SUITE, quick=False),
    "reference-quick": partial(open_suite, "reference-quick", SUITE, quick=True),
}


def names() -> list[str]:
    """The names of all benchmarks, sorted."""
    return sorted(_OPENERS)


def open_benchmark(name: str) -> Benchmark:
    """The benchmark of that name. Raises UnknownBenchmark with the nearest names."""
    if name not in _OPENERS:
        raise UnknownBenchmark(
            f"no benchmark {name!r}; nearest: {nearest(name, names())}. `harness list benchmarks` names them all"
        )
    return _OPENERS[name]()
