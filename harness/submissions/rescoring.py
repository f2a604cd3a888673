"""Stored answers judged again: by the benchmark's own rule, on its own questions, wherever these can be opened."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from harness.benchmarks.base import Benchmark
from harness.integrations.lmms_eval.installed import PREFIX
from harness.records.errors import BenchmarkUnavailable, CorruptBenchmark, UnknownBenchmark
from harness.records.records import Record, Sample
from harness.submissions.run_checks import Claim, same


class Judge:
    """Opens benchmarks once, and remembers what an answer to a question scored.

    data_dir: where published data sets lie; without it only embedded suites are opened, nothing is downloaded.
    """

    def __init__(self, data_dir: Path | None = None):
        self._data_dir = data_dir
        self._open = cache(self._opened)
        self._scores: dict[tuple[str, str, str], float] = {}
        self._said: dict[tuple[str, str, str], tuple[float, str]] = {}

    def problems(self, claim: Claim) -> Iterator[str]:
        """What is wrong with a run's questions, scores and metrics. Nothing is said of what cannot be opened."""
        try:
            benchmark = self._open(claim.spec.benchmark)
        except UnknownBenchmark as problem:
            yield str(problem)
            return
        if isinstance(benchmark, str):
            yield from self._contradictions(claim)
        elif benchmark.revision != claim.spec.benchmark_revision:
            yield f"benchmark_revision is not that of {benchmark.name} here, {benchmark.revision[:16]}...; run it again"
        else:
            yield from self._question_problems(claim, benchmark)

    def note(self, benchmark: str) -> str | None:
        """Why a benchmark's answers were not judged again; None where they were, or where it is unknown."""
        try:
            opened = self._open(benchmark)
        except UnknownBenchmark:
            return None  # told by `problems`
        return opened if isinstance(opened, str) else None

    def _opened(self, name: str) -> Benchmark | str:
        from harness.benchmarks.registry import EMBEDDED_SUITES, declarations, open_benchmark

        if name.startswith(PREFIX):
            return f"answers to {name} were not judged again: lmms-eval does that, in `harness run` alone"
        if name not in EMBEDDED_SUITES and name in declarations() and self._data_dir is None:
            return f"answers to {name} were not judged again: its data set is not here (--data-dir)"
        if name not in EMBEDDED_SUITES and name not in declarations():
            raise UnknownBenchmark(f"no benchmark {name!r} that others have; submit runs of `harness list benchmarks`")
        try:
            return open_benchmark(name, self._data_dir) if name not in EMBEDDED_SUITES else open_benchmark(name)
        except (BenchmarkUnavailable, CorruptBenchmark) as problem:
            return f"answers to {name} were not judged again: {problem}"

    def _question_problems(self, claim: Claim, benchmark: Benchmark) -> Iterator[str]:
        samples = {sample.id: sample for sample in benchmark.samples}
        answered, asked = {record.sample_id for record in claim.records}, samples.keys()
        if answered != asked:
            yield (
                f"{len(asked - answered)} questions of {benchmark.name} have no answer, "
                f"{len(answered - asked)} answers have no question"
            )
            return
        moved = [one for one in claim.records if _place(one) != _place(samples[one.sample_id])]
        if moved:
            yield f"cluster or category of {len(moved)} rows are not the benchmark's, e.g. {moved[0].sample_id}"
        forged = [
            (record, score)
            for record in claim.records
            if record.error is None
            and not same(record.score, score := self._score(benchmark, record, samples[record.sample_id]))
        ]
        if forged:
            record, score = forged[0]
            yield (
                f"{len(forged)} scores are not what the answers score by the rule of {benchmark.name}, e.g. "
                f"{record.sample_id}: {record.prediction[:40]!r} scores {score:g}, stated {record.score:g}"
            )
            return
        yield from _metric_problems(claim, benchmark)

    def _score(self, benchmark: Benchmark, record: Record, sample: Sample) -> float:
        key = (benchmark.name, sample.id, record.prediction)
        if key not in self._scores:
            self._scores[key] = benchmark.score(record.prediction, sample)
        return self._scores[key]

    def _contradictions(self, claim: Claim) -> Iterator[str]:
        """Equal answers to one question score the same in all runs, whoever judges them."""
        for record in claim.records:
            if record.error is not None:
                continue
            key = (claim.spec.benchmark_revision, record.sample_id, record.prediction)
            score, first = self._said.setdefault(key, (record.score, claim.run_id))
            if score != record.score:
                said = f"{record.sample_id}: {record.prediction[:40]!r}"
                yield f"{said} scores {record.score:g} here and {score:g} in {first}"
                return


def _place(one: Record | Sample) -> tuple[str, str]:
    return one.cluster, one.category


def _metric_problems(claim: Claim, benchmark: Benchmark) -> Iterator[str]:
    counted = {name: value for name, value in benchmark.metrics(claim.records).items() if not math.isnan(value)}
    stated = claim.document["figures"].get("metrics", {})
    for name in sorted(counted.keys() | stated.keys()):
        if not same(stated.get(name), counted.get(name)):
            yield f"metric {name[:60]} is {stated.get(name)}, the answers give {counted.get(name)}"
