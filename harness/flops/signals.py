"""FLOPs of the signals that the harness computes for a method.

A running model counts these as they happen (harness/models/trace.py); here they are told from token counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.flops.dims import ModelDims
from harness.models.signals import peeks
from harness.models.sites import signals_read_at
from harness.records.records import PromptText
from methods.base import Signal, Site
from methods.ops import cosines_flops

_PRODUCTS = ("rows", "logits")  # the kinds that multiply queries with keys


def vit_signal_flops(
    dims: ModelDims, signal: Signal, units: int, tokens: int, extra: int, windows: tuple[int, ...] = ()
) -> int:
    """One signal on one image of `units` alive, `tokens` with its extra and aggregate ones, `extra` of them extra.

    windows: tokens of each window, in a block that attends within them: received rows only.
    Raises ValueError for queries that no family gives yet.
    """
    if signal.kind not in _PRODUCTS:
        return 0
    if windows and signal.queries == "received":
        return 2 * sum(length**2 for length in windows) * dims.vit_width
    patches = units * dims.unit_patches
    queries = {"extra": extra, "visual": patches, "received": patches}
    if dims.vit_prefix_tokens:
        queries["cls"] = 1
    if signal.queries not in queries or windows:
        raise ValueError(f"FLOPs of {signal} in the ViT are not known; known queries: {', '.join(queries)}")
    return 2 * queries[signal.queries] * tokens * dims.vit_width


def llm_signal_flops(
    dims: ModelDims, signals: Iterable[Signal], site: Site, n: int, entering: tuple[int, ...], text: PromptText
) -> int:
    """The signals read at an in-LLM site, where n visual tokens are alive.

    A layer that has not run is peeked at, once: its queries and keys are projected from today's tokens.
    """
    read = signals_read_at(signals, site.layer)
    peeked = {signal.layer for signal in read if peeks(signal, site.layer)}
    projections = 2 * (text.total + n) * dims.llm_width * (dims.llm_query_width + dims.llm_key_width)
    flops = len(peeked) * projections
    for signal in read:
        tokens = text.total + (n if signal.layer in peeked else entering[signal.layer])
        if signal.kind in _PRODUCTS:
            queries = {"last": 1, "mean": 1, "visual": n, "text": text.behind, "all": tokens}[signal.queries]
            flops += 2 * queries * tokens * dims.llm_query_width
        elif signal.kind == "cosines":
            flops += cosines_flops(n, dims.llm_key_width)
        elif signal.kind == "affinity":
            flops += 2 * entering[0] * text.behind * dims.llm_width
        elif signal.kind == "gravity":
            flops += 2 * n * text.behind * dims.llm_head_width
    return flops
