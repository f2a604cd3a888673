"""Compare a run with its unpruned and random controls.

`document` is the JSON of `harness run --json`; its keys are a promise, so add and never rename.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.budget.spec import BudgetSpec
from harness.latency.figures import latency_document
from harness.records.figures import Figures
from harness.records.run_spec import RunSpec
from harness.stats import Interval, paired_difference
from harness.store.log_reader import RunContents


@dataclass(frozen=True)
class Summary:
    """One finished run. entering: mean visual tokens that entered each LLM layer. accuracy_by_category: in [0, 1]."""

    spec: RunSpec
    figures: Figures
    entering: tuple[float, ...]
    accuracy_by_category: Mapping[str, float]

    @property
    def budget(self) -> str:
        return str(BudgetSpec(self.spec.budget_kind, self.spec.budget_value))


@dataclass(frozen=True)
class Comparison:
    """A run beside its controls. random, over_random: None where there is no random run to compare with.

    over_random: accuracy minus random's, paired by sample, with its 95 % interval; None where questions have no scores.
    """

    run: Summary
    full: Summary
    random: Summary | None
    over_random: Interval | None

    @property
    def beats_random(self) -> str | None:
        """ "yes", "no" (worse) or "not distinguishable"."""
        if self.over_random is None:
            return None
        if self.over_random.low > 0:
            return "yes"
        return "no" if self.over_random.high < 0 else "not distinguishable"


def summarise(contents: RunContents) -> Summary:
    """The summary of a finished run's log."""
    assert contents.figures is not None
    ran = [record for record in contents.records.values() if record.error is None]
    by_category: dict[str, list[float]] = defaultdict(list)
    for record in contents.records.values():
        if record.score is not None:
            by_category[record.category].append(record.score)
    return Summary(
        contents.spec,
        contents.figures,
        tuple(sum(layer) / len(ran) for layer in zip(*(record.entering for record in ran), strict=True)),
        {category: sum(scores) / len(scores) for category, scores in sorted(by_category.items())},
    )


def compare(own: RunContents, full: RunContents, random: RunContents | None) -> Comparison:
    """A run's log beside its controls' logs, which hold the same samples."""
    if random is None:
        return Comparison(summarise(own), summarise(full), None, None)
    records = own.records.values()
    if any(record.score is None for record in records):
        return Comparison(summarise(own), summarise(full), summarise(random), None)
    over = paired_difference(
        [record.score for record in records],
        [random.records[record.sample_id].score for record in records],
        [record.cluster for record in records],
    )
    return Comparison(summarise(own), summarise(full), summarise(random), over)


def document(comparison: Comparison) -> dict[str, Any]:
    """The JSON document of a run."""
    run, figures, over = comparison.run, comparison.run.figures, comparison.over_random
    return {
        "run_id": run.spec.run_id,
        "status": figures.status,
        "message": figures.message,
        "method": run.spec.method,
        "preset": run.spec.preset,
        "settings": run.spec.settings,
        "model": run.spec.model,
        "model_revision": run.spec.model_revision,
        "benchmark": run.spec.benchmark,
        "benchmark_revision": run.spec.benchmark_revision,
        "seed": run.spec.seed,
        "dtype": run.spec.dtype,
        "device": run.spec.device,
        "attention": run.spec.attention,
        "budget": {
            "asked": run.budget,
            "kind": run.spec.budget_kind,
            "asked_tokens": figures.asked_tokens,
            "realised_tokens": figures.realised_tokens,
            "full_tokens": figures.full_tokens,
        },
        "entering_tokens_by_layer": list(run.entering),
        "accuracy": {
            "value": figures.accuracy,
            "low": figures.accuracy_low,
            "high": figures.accuracy_high,
            "n": figures.n,
            "errors": figures.errors,
            "full_value": figures.full_accuracy,
            "by_category": dict(run.accuracy_by_category),
        },
        "metrics": dict(figures.metrics),
        "ra": figures.ra,
        "ra_low": figures.ra_low,
        "ra_high": figures.ra_high,
        "flops_ratio": figures.flops_ratio,
        "llm_flops_ratio": figures.llm_flops_ratio,
        "visual_tokens_pruned_ratio": figures.visual_tokens_pruned_ratio,
        "recall_of_target": figures.recall_of_target,
        "inference_time_s": figures.inference_time_s,
        "latency": latency_document(figures),
        "controls": {"full": _control(comparison.full), "random": _control(comparison.random)},
        "beats_random": comparison.beats_random,
        "over_random": over and {"value": over.value, "low": over.low, "high": over.high},
    }


def _control(summary: Summary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    figures = summary.figures
    return {
        "run_id": summary.spec.run_id,
        "accuracy": {"value": figures.accuracy, "low": figures.accuracy_low, "high": figures.accuracy_high},
        "ra": figures.ra,
        "realised_tokens": figures.realised_tokens,
        "flops_ratio": figures.flops_ratio,
    }
