"""Latency reductions that papers print, to stand beside ours; never mixed with them."""

from __future__ import annotations

from typing import Any

SOURCE = (
    "QuietPrune (CVPR 2026), as two reading notes give its table: prefill on one A100, eager attention, half of the "
    "LLM's visual tokens pruned on average, mean of six benchmarks"
)
_AT_HALF = {  # (model, method) -> (LR, prefill in ms); the unpruned InternVL3-1B takes 125 ms there
    ("internvl3-1b", "fastv"): (0.168, 104.0),
    ("internvl3-1b", "pact"): (0.200, 100.0),
    ("internvl3-1b", "divprune"): (-0.248, 156.0),
    ("internvl3-1b", "quietprune"): (0.421, None),
    ("qwen3-vl-4b", "quietprune"): (0.331, None),
}


def published(model: str, method: str, budget: str) -> dict[str, Any] | None:
    """What a paper says of a method at a budget on a model; None where we know of nothing."""
    found = _AT_HALF.get((model, method)) if budget == "50%" else None
    return found and {"lr": found[0], "prefill_ms": found[1], "source": SOURCE}
