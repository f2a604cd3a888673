"""What a finished run says about itself: the figures of its log's footer, one column each of the store's `runs`.

Plain data, so that the runner can write it, the store can load it and the board can read it without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OK = "ok"
FAILED_BUDGET = "failed_budget"  # realised tokens miss the asked ones in some sample: never ranked
INFEASIBLE = "infeasible"  # the method cannot reach the budget; `message` and `floor_tokens` name the floor
UNSUPPORTED = "unsupported"  # the model cannot give what the method needs; `message` says what
ERROR = "error"  # the run could not go on; `message` says why
PARTIAL = "partial"  # stopped before its end; the same command continues it
REPORTED = "reported"  # by another tool, at a budget that nobody measured: never ranked
STATUSES = (OK, FAILED_BUDGET, INFEASIBLE, UNSUPPORTED, ERROR, PARTIAL, REPORTED)

# provenance: in the store, submitted and repeated by somebody, submitted only
LOCAL, VERIFIED, SELF_REPORTED = "local", "verified", "self-reported"


@dataclass(frozen=True)
class Figures:
    """A run's results. None: not measured, or without meaning for this run. NaN is stored as None.

    n: samples with a record, error rows included; errors: those that count as wrong because something failed.
    *_tokens: means over samples of visual tokens; asked_tokens None in native mode. floor_tokens: the least layer
    average that an infeasible run could have asked for.
    accuracy, ra and their 95 % bounds: ratios, 1 = all right / as good as no pruning. full_accuracy: the unpruned
    run's on the same samples; reference_run_id: that run. metrics: what the benchmark reports, each named with its
    rule, those without a row left out.
    flops_ratio: pruned / unpruned FLOPs of ViT + projector + selection + LLM prefill; *_flops: mean per sample, the
    exact formula; *_2ndm_flops: the papers' formula.
    lr: latency reduction, (t_full - t_pruned) / t_full, negative = slower than no pruning. base_ms, pruned_ms: stage
    -> median ms; *_p90_ms: of the total; *_ttft_ms: preprocessing and the host's wall time to the first token.
    *_residual_ratio: residual / total, above 5 % the stages do not tell the whole. indicative: not publishable, and
    indicative_because says why. host_bound: the host, not the device, set the pace; throttled: the device held itself
    back. aa_ratio: second / first of the A/A control pairs, its interval should hold 1. latency_interval: "sessions",
    or "within-session", which is never ranked. *_attention: stage -> kernels that ran, with their calls.
    roofline_*, lr_efficiency, select_tax, late_ceiling_lr: harness/latency/roofline.py defines them.
    *_peak_bytes: allocated on the accelerator; *_kv_cache_bytes: left by the prefill; *_prefills_per_s: batch size ->
    rate, None where throughput_note says why not; *_joules: the device's energy for a prefill.
    inference_time_s: wall time of the accuracy pass. recall_of_target: mean share of the target's units that survived.
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
    metrics: Mapping[str, float] = field(default_factory=dict)
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
    indicative_because: str | None = None
    latency_interval: str | None = None
    latency_sessions: int | None = None
    latency_pairs: int | None = None
    host_bound: bool | None = None
    throttled: bool | None = None
    aa_ratio: float | None = None
    aa_ratio_low: float | None = None
    aa_ratio_high: float | None = None
    base_ms: Mapping[str, float] = field(default_factory=dict)
    pruned_ms: Mapping[str, float] = field(default_factory=dict)
    base_p90_ms: float | None = None
    pruned_p90_ms: float | None = None
    base_ttft_ms: float | None = None
    pruned_ttft_ms: float | None = None
    base_residual_ratio: float | None = None
    pruned_residual_ratio: float | None = None
    base_attention: Mapping[str, str] = field(default_factory=dict)
    pruned_attention: Mapping[str, str] = field(default_factory=dict)
    roofline_peaks: str | None = None
    roofline_lr: float | None = None
    lr_efficiency: float | None = None
    select_tax: float | None = None
    late_ceiling_lr: float | None = None
    base_peak_bytes: float | None = None
    pruned_peak_bytes: float | None = None
    base_kv_cache_bytes: float | None = None
    pruned_kv_cache_bytes: float | None = None
    base_prefills_per_s: Mapping[str, float | None] = field(default_factory=dict)
    pruned_prefills_per_s: Mapping[str, float | None] = field(default_factory=dict)
    throughput_note: str | None = None
    base_joules: float | None = None
    pruned_joules: float | None = None
    inference_time_s: float | None = None
    recall_of_target: float | None = None

    def __post_init__(self) -> None:
        assert self.status in STATUSES, self.status
