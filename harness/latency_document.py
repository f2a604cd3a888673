"""What a run's JSON document says of latency, limits and resources: its figures under the names that users rely on."""

from __future__ import annotations

from typing import Any

from harness.records.figures import Figures

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
