"""Memory of one repetition, measured apart from the timed ones."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from harness.flops.dims import ModelDims
from harness.records.records import Realised


@dataclass(frozen=True)
class PeakMemory:
    """Peaks in bytes. allocated, reserved: torch's on the accelerator, None without one.

    host_peak_rss: of this process since its start (a CPU run cannot be told from what came before it).
    """

    allocated_bytes: int | None
    reserved_bytes: int | None
    host_peak_rss_bytes: int


def peak_memory(run: Callable[[], Any]) -> PeakMemory:
    """The peaks while `run` runs once. The weights that are there already count too."""
    if not torch.cuda.is_available():
        run()
        return PeakMemory(None, None, _host_peak_rss_bytes())
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return PeakMemory(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), _host_peak_rss_bytes())


def _host_peak_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def kv_cache_bytes(dims: ModelDims, realised: Realised, bytes_per_value: int) -> int:
    """Keys and values that the prefill leaves behind, by each layer's own length."""
    tokens = sum(entering + realised.text_tokens for entering in realised.entering)
    return tokens * 2 * dims.llm_key_width * bytes_per_value
