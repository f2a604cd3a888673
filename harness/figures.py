"""What a finished run says about itself: the figures of its log's footer, one column each of the store's `runs`.

Plain data, so that the runner can write it, the store can load it and the board can read it without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OK = "ok"
FAILED_BUDGET = "failed_budget"  # realised tokens miss the asked ones in some sample: never ranked
INFEASIBLE = "infeasible"  # the method cannot reach the budget; `message` and `floor_tokens` name the floor
UNSUPPORTED = "unsupported"  # the model cannot give what the method needs; `message` says what
ERROR = "error"  # the run could not go on; `message` says why
PARTIAL = "partial"  # stopped before its end; the same command continues it
STATUSES = (OK, FAILED_BUDGET, INFEASIBLE, UNSUPPORTED, ERROR, PARTIAL)


@dataclass(frozen=True)
class Figures:
    """A run's results. None: not measured, or without meaning for this run. NaN is stored as None.

    n: samples with a record, error rows included; errors: those that count as wrong because something failed.
    *_tokens: means over samples of visual tokens; asked_tokens None in native mode. floor_tokens: the least layer
    average that an infeasible run could have asked for.
    accuracy, ra and their 95 % bounds: ratios, 1 = all right / as good as no pruning. full_accuracy: the unpruned
    run's on the same samples; reference_run_id: that run.
    flops_ratio: pruned / unpruned FLOPs of ViT + projector + selection + LLM prefill; *_flops: mean per sample, the
    exact formula; *_2ndm_flops: the papers' formula.
    lr: latency reduction, (t_full - t_pruned) / t_full, negative = slower than no pruning. base_ms, pruned_ms: stage
    -> median ms. aa_ratio_*: interval of the A/A control pairs, which should hold 1. indicative: not publishable
    (no accelerator, or fewer pairs or sessions than the protocol asks). inference_time_s: wall time of the accuracy
    pass. recall_of_target: mean share of the target's units that survived.
    """

    status: str
    message: str = ""
    n: int = 0
    errors: int = 0
    full_tokens: float | None = None
    asked_tokens: float | None = None
    realised_tokens: float | None = None
    floor_tokens: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    full_accuracy: float | None = None
    ra: float | None = None
    ra_low: float | None = None
    ra_high: float | None = None
    reference_run_id: str | None = None
    flops_ratio: float | None = None
    llm_flops_ratio: float | None = None
    visual_tokens_pruned_ratio: float | None = None
    base_prefill_flops: float | None = None
    pruned_prefill_flops: float | None = None
    base_prefill_2ndm_flops: float | None = None
    pruned_prefill_2ndm_flops: float | None = None
    latency_clock: str | None = None
    lr: float | None = None
    lr_low: float | None = None
    lr_high: float | None = None
    indicative: bool | None = None
    aa_ratio_low: float | None = None
    aa_ratio_high: float | None = None
    base_ms: Mapping[str, float] = field(default_factory=dict)
    pruned_ms: Mapping[str, float] = field(default_factory=dict)
    inference_time_s: float | None = None
    recall_of_target: float | None = None

    def __post_init__(self) -> None:
        assert self.status in STATUSES, self.status


@dataclass(frozen=True)
class ResourceRow:
    """One measured resource. name carries the unit: "peak_allocated_bytes", "kv_cache_bytes", "energy_joules"."""

    session: str
    arm: str
    name: str
    value: float


@dataclass(frozen=True)
class Environment:
    """Where and with what a run, or its continuation, ran.

    machine_id: id of the machine's fingerprint. facts: plain JSON (fingerprint, versions, git commit and dirty flag).
    """

    machine_id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
