"""How far latency on this machine can be trusted: the unpruned embedded model timed against itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from harness.benchmarks import open_benchmark
from harness.latency.clock import StageClock, default_backend
from harness.latency.protocol import Protocol, Run, measure_pairs
from harness.latency.statistics import LatencySummary, summarise
from harness.models.engine import Engine
from harness.models.families.family import Inputs
from harness.models.loading import open_model
from methods.base import Plan

SECONDS = 10.0
TRUSTED = 0.05  # a ratio: where equal arms scatter more, a session shows large effects only


@dataclass(frozen=True)
class Trust:
    """What equal arms looked like. summary: their pairs, one arm called "pruned"."""

    summary: LatencySummary

    @property
    def resolution(self) -> float:
        """Half width of the interval of equal arms, as a ratio: a smaller difference cannot be told in such a time."""
        assert self.summary.low is not None and self.summary.high is not None  # at least 5 pairs were timed
        return (self.summary.high - self.summary.low) / 2

    @property
    def is_good(self) -> bool:
        """Whether equal arms look equal, and closely so."""
        assert self.summary.low is not None and self.summary.high is not None
        return self.summary.low <= 0 <= self.summary.high and self.resolution <= TRUSTED

    def __str__(self) -> str:
        found, low, high = self.summary, self.summary.low, self.summary.high
        return (
            f"equal arms differ by {found.lr:+.1%} [{low:+.1%}, {high:+.1%}] over {found.pairs} pairs of "
            f"{found.base_ms['total']:.1f} ms; differences below {self.resolution:.1%} cannot be told in this time"
        )


def self_test(device: str, seconds: float = SECONDS) -> Trust:
    """Time the unpruned embedded model against itself. Raises HarnessError where it cannot be opened."""
    model, suite = open_model("reference-a", device=device), open_benchmark("reference-quick")
    sample = suite.samples[0]
    inputs = model.prepare(suite.load_images(sample), suite.prompt(sample))
    run: Run = partial(_prefill, model.engine(None), inputs)
    return trust_of(run, StageClock(default_backend(device)), seconds)


def trust_of(run: Run, clock: StageClock, seconds: float) -> Trust:
    """The trust that one arm earns against itself."""
    return Trust(summarise(measure_pairs({"1x1+1": (run, run)}, Protocol(seconds=seconds), clock, "self-test")))


def _prefill(engine: Engine, inputs: Inputs, clock: StageClock) -> None:
    engine.prefill(inputs, Plan({}, (inputs.shape.n,) * inputs.shape.llm_layers), clock=clock)
