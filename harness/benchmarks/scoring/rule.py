"""The types of scoring: a rule judges one answer, a metric sums up a run.

A rule gives None where no answer can be read out of a model's words. That counts as wrong and has a rate of its own.
Public tools guess a random letter there; the more a pruner damages a model, the more such guesses hide it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.records.records import Sample

Rule = Callable[[str, Sample], float | None]


@dataclass(frozen=True)
class Scored:
    """One answered sample. score: in [0, 1], or None where no answer could be read (error rows among them)."""

    sample: Sample
    prediction: str
    score: float | None

    @property
    def right(self) -> bool:
        """Whether the answer is fully right."""
        return self.score == 1.0


@dataclass(frozen=True)
class Metric:
    """A number over a run, named with its rule. rule: how its answers are judged, None = as the rows' scores are."""

    name: str
    aggregate: Callable[[Sequence[Scored]], float]
    rule: Rule | None = None
