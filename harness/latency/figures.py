"""The figures of a run that speak of time and resources, from the rows of its timing sessions on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

from harness.latency.roofline import roofline
from harness.latency.statistics import LatencySummary, summarise, was_throttled
from harness.records.figures import Figures
from harness.records.records import ARMS, LatencyRow, ResourceRow
from harness.store.log_reader import RunContents

BATCHES = (1, 8, 32)  # of throughput
NOT_BATCHED = "batches above 1 are not measured: a batch is prefilled prompt by prompt"


def latency_figures(contents: RunContents, machine_id: str) -> dict[str, Any]:
    """Fields of `Figures`; {} for a run that was not timed on that machine."""
    rows = [row for at, row in contents.latencies if at == machine_id]
    resources = [row for at, row in contents.resources if at == machine_id]
    return figures_of_sessions(rows, resources) if rows else {}


def figures_of_sessions(rows: Sequence[LatencyRow], resources: Sequence[ResourceRow]) -> dict[str, Any]:
    """Fields of `Figures` from the rows of sessions on one machine."""
    throttled = was_throttled(resources)
    latency = summarise(rows, throttled)
    return {**_times(latency), "throttled": throttled, **_limits(resources, latency), **_resources(resources)}


def _times(latency: LatencySummary) -> dict[str, Any]:
    alike = (
        *("lr", "indicative", "host_bound", "aa_ratio", "base_p90_ms", "pruned_p90_ms"),
        *("base_ttft_ms", "pruned_ttft_ms", "base_residual_ratio", "pruned_residual_ratio"),
    )
    return {
        **{name: getattr(latency, name) for name in alike},
        "latency_clock": latency.clock,
        "latency_interval": latency.interval,
        "latency_sessions": latency.sessions,
        "latency_pairs": latency.pairs,
        "lr_low": latency.low,
        "lr_high": latency.high,
        "indicative_because": "; ".join(latency.doubts),
        "aa_ratio_low": latency.aa_low,
        "aa_ratio_high": latency.aa_high,
        "base_ms": dict(latency.base_ms),
        "pruned_ms": dict(latency.pruned_ms),
    }


def _limits(resources: Sequence[ResourceRow], latency: LatencySummary) -> dict[str, Any]:
    found = roofline(resources, latency)
    if found is None:
        return {}
    names = ("roofline_lr", "lr_efficiency", "select_tax", "late_ceiling_lr")
    return {"roofline_peaks": found.peaks, **{name: getattr(found, name) for name in names}}


def _resources(resources: Sequence[ResourceRow]) -> dict[str, Any]:
    """Peaks are the highest of all sessions; rates and energies their medians."""
    figures: dict[str, Any] = {}
    for arm in ARMS:
        own = [row for row in resources if row.arm == arm]
        rates = {str(batch): _over(own, f"prefills_per_s/{batch}", median) for batch in BATCHES}
        figures[f"{arm}_peak_bytes"] = _over(own, "peak_allocated_bytes", max)
        figures[f"{arm}_kv_cache_bytes"] = _over(own, "kv_cache_bytes", max)
        figures[f"{arm}_joules"] = _over(own, "joules_per_prefill", median)
        figures[f"{arm}_prefills_per_s"] = rates if any(rates.values()) else {}
        figures[f"{arm}_attention"] = _kernels(own)
    measured = figures["base_prefills_per_s"]
    figures["throughput_note"] = NOT_BATCHED if measured and None in measured.values() else None
    return figures


def _over(rows: Iterable[ResourceRow], name: str, middle: Callable[[list[float]], float]) -> float | None:
    values = [row.value for row in rows if row.name == name]
    return middle(values) if values else None


def _kernels(rows: Iterable[ResourceRow]) -> dict[str, str]:
    """Stage -> its attention kernels with their calls, "flash x14, unfused x2"."""
    calls: dict[str, dict[str, int]] = {}
    for row in rows:
        kind, _, place = row.name.partition("/")
        if kind == "attention_calls":
            stage, _, kernel = place.partition("/")
            calls.setdefault(stage, {})[kernel] = int(row.value)
    return {stage: ", ".join(f"{kernel} x{n}" for kernel, n in sorted(found.items())) for stage, found in calls.items()}


_BOTH = ("p90_ms", "ttft_ms", "residual_ratio", "attention", "peak_bytes", "kv_cache_bytes", "prefills_per_s", "joules")


def latency_document(figures: Figures) -> dict[str, Any]:
    """The JSON of one run's timing; what was not measured is null. Keys are a promise: add and never rename."""
    return {
        "clock": figures.latency_clock,
        "lr": figures.lr,
        "low": figures.lr_low,
        "high": figures.lr_high,
        "interval": figures.latency_interval,
        "sessions": figures.latency_sessions,
        "pairs": figures.latency_pairs,
        "indicative": figures.indicative,
        "indicative_because": figures.indicative_because,
        "host_bound": figures.host_bound,
        "throttled": figures.throttled,
        "base_ms": dict(figures.base_ms),
        "pruned_ms": dict(figures.pruned_ms),
        **{name: {arm: _plain(getattr(figures, f"{arm}_{name}")) for arm in ("base", "pruned")} for name in _BOTH},
        "throughput_note": figures.throughput_note,
        "aa_ratio": {"value": figures.aa_ratio, "low": figures.aa_ratio_low, "high": figures.aa_ratio_high},
        "roofline": {
            "peaks": figures.roofline_peaks,
            "lr": figures.roofline_lr,
            "lr_efficiency": figures.lr_efficiency,
            "select_tax": figures.select_tax,
            "late_ceiling_lr": figures.late_ceiling_lr,
        },
    }


def _plain(value: Any) -> Any:
    return dict(value) if hasattr(value, "items") else value
