"""The figures of a finished run, from its log and the unpruned run's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from harness.budget.planning import misses_budget
from harness.latency.figures import latency_figures
from harness.records.figures import FAILED_BUDGET, OK, Figures
from harness.records.records import Record
from harness.stats import accuracy_interval, ra_interval
from harness.store.log_reader import RunContents


def figures_of(contents: RunContents, full: RunContents, machine_id: str) -> Figures:
    """What a run says about itself.

    full: the unpruned run on the same samples, which may be `contents` itself. machine_id: whose latency rows count.
    An error row counts as wrong, and takes no part in token and FLOPs counts.
    """
    records = list(contents.records.values())
    missed = [record for record in records if misses_budget(record, contents.spec.budget_kind, contents.spec.method)]
    return Figures(
        status=FAILED_BUDGET if missed else OK,
        message=_miss(missed, len(records)) if missed else "",
        n=len(records),
        errors=sum(record.error is not None for record in records),
        inference_time_s=sum(record.seconds for record in records),
        recall_of_target=_mean(record.recall_of_target for record in records),
        **_tokens(records),
        **_accuracy(contents, full),
        **_flops(records, full),
        **latency_figures(contents, machine_id),
    )


def _miss(missed: Sequence[Record], of: int) -> str:
    first = missed[0]
    realised = fmean(first.entering)
    return (
        f"{len(missed)} of {of} samples missed the budget, e.g. {first.sample_id}: asked {first.asked_tokens} visual "
        f"tokens, {realised:.1f} entered the LLM's layers on average; the run is never ranked"
    )


def _tokens(records: Sequence[Record]) -> dict[str, float | None]:
    ran = [record for record in records if record.error is None]
    full, realised = _mean(record.full_tokens for record in ran), _mean(fmean(record.entering) for record in ran)
    return {
        "full_tokens": full,
        "asked_tokens": _mean(record.asked_tokens for record in ran),
        "realised_tokens": realised,
        "visual_tokens_pruned_ratio": 1 - realised / full if full and realised is not None else None,
    }


def _accuracy(contents: RunContents, full: RunContents) -> dict[str, float | str | None]:
    """An unpruned run is its own measure: its RA is 1 by definition, not by estimate.

    Nothing but that run where questions have no scores of their own.
    """
    records = contents.records.values()
    scores, base = [record.score for record in records], [full.records[record.sample_id].score for record in records]
    if None in scores or None in base:
        return {"reference_run_id": full.spec.run_id}
    clusters = [record.cluster for record in records]
    accuracy, ra = accuracy_interval(scores, clusters), ra_interval(scores, base, clusters)
    if contents is full:
        ra = replace(ra, low=ra.value, high=ra.value)
    return {
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "full_accuracy": fmean(base),
        "ra": ra.value,
        "ra_low": ra.low,
        "ra_high": ra.high,
        "reference_run_id": full.spec.run_id,
    }


def _flops(records: Sequence[Record], full: RunContents) -> dict[str, float | None]:
    """Means per sample over those that ran in both arms, and ratios of their sums."""
    pairs = [(record.flops, full.records[record.sample_id].flops) for record in records]
    pairs = [(pruned, base) for pruned, base in pairs if pruned and base]
    if not pairs:
        return {}
    pruned, base = ({key: fmean(one[arm][key] for one in pairs) for key in pairs[0][arm]} for arm in (0, 1))
    return {
        "flops_ratio": pruned["total"] / base["total"],
        "llm_flops_ratio": pruned["llm"] / base["llm"],
        "base_prefill_flops": base["total"],
        "pruned_prefill_flops": pruned["total"],
        "base_prefill_2ndm_flops": base["paper_2ndm"],
        "pruned_prefill_2ndm_flops": pruned["paper_2ndm"],
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
