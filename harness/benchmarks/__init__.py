"""Benchmarks: questions over images, with scoring. `names()` lists them, `open_benchmark(name)` opens one."""

from harness.benchmarks.base import Benchmark
from harness.benchmarks.registry import names, open_benchmark

__all__ = ["Benchmark", "names", "open_benchmark"]
