"""Benchmarks: questions over images, with scoring. `names()` lists them, `open_benchmark(name)` opens one."""

from harness.benchmarks.base import Benchmark
from harness.benchmarks.registry import EMBEDDED_SUITES, describe, names, open_benchmark

__all__ = ["EMBEDDED_SUITES", "Benchmark", "describe", "names", "open_benchmark"]
