"""Signals of decoder layers, read from captured queries and keys."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.models.attention import Capture
from harness.models.sequence import Sequence
from methods.base import MissingSignal, Signal
from methods.ops import cosines, cosines_flops


def read_signal(signal: Signal, capture: Capture, index: Tensor, causal: bool) -> Tensor:
    """A declared signal from a capture, its columns restricted to the tokens at `index` (n,)."""
    if signal.kind in ("queries", "keys"):
        states = capture.query if signal.kind == "queries" else capture.key
        return states[0, :, index].transpose(0, 1)  # (n, h, hd)
    if signal.kind == "cosines":
        keys = capture.key[0, :, index].transpose(0, 1).flatten(1)  # (n, h_kv * hd)
        capture.spend(cosines_flops(*keys.shape))
        return cosines(keys)
    if signal.kind not in ("rows", "logits"):
        raise MissingSignal(f"the LLM has no signal {signal.kind!r}")
    length = capture.key.shape[2]
    if signal.queries == "all":
        square = _square_logits(capture, index)  # (h, T, T)
        square = square.softmax(-1) if signal.kind == "rows" else square
        return square if signal.per_head else square.mean(0)
    if signal.queries == "last":
        wanted = torch.arange(length - 1, length, device=index.device)
    elif signal.queries == "visual":
        wanted = index
    elif signal.queries == "text":
        wanted = text_behind(index, length)
    elif signal.queries != "mean":
        raise MissingSignal(f"the LLM has no {signal.queries!r} queries; use last, text, visual, mean or all")
    logits = _mean_logits(capture, index) if signal.queries == "mean" else capture.logits(wanted, causal)  # (h, q, T)
    values = logits.softmax(-1) if signal.kind == "rows" else logits
    values = values[..., index]  # (h, q, n)
    values = values if signal.per_head else values.mean(0)
    return values.squeeze(-2) if signal.queries in ("last", "mean") else values


def _square_logits(capture: Capture, index: Tensor) -> Tensor:
    """Causal logits of all tokens against all, the tokens at `index` first and the others behind them. (h, T, T)"""
    length = capture.key.shape[2]
    others = torch.ones(length, dtype=torch.bool, device=index.device).index_fill(0, index, False)
    behind = torch.sort(others.int(), descending=True, stable=True).indices[: length - index.shape[0]]
    order = torch.cat([index, behind])  # (T,)
    sorted_capture = replace(capture, query=capture.query[:, :, order], key=capture.key[:, :, order])
    logits = sorted_capture.logits(slice(None), causal=False)
    return logits.masked_fill(order[None, :] > order[:, None], -torch.inf)


def _mean_logits(capture: Capture, index: Tensor) -> Tensor:
    """Logits of the mean query of all tokens up to the last visual one, against those tokens alone. (h, 1, T)"""
    outside = torch.arange(capture.key.shape[2], device=index.device) > index.max()  # (T,)
    mean = capture.query.float().masked_fill(outside[:, None], 0).sum(2, keepdim=True) / (~outside).sum()
    one = replace(capture, query=mean)
    return one.logits(slice(None), causal=False).masked_fill(outside, -torch.inf)


def text_behind(index: Tensor, length: int) -> Tensor:
    """Places (m,) of the text behind the first visual token. Waits for the device: a count that only it knows."""
    place = torch.arange(length, device=index.device)
    is_text = torch.ones(length, dtype=torch.bool, device=index.device).index_fill(0, index, False)
    return place[is_text & (place > index[0])]


def peeks(signal: Signal, site: int) -> bool:
    return signal.kind not in ("affinity", "gravity") and signal.layer >= site


def rotated(states: Tensor, sequence: Sequence) -> Tensor:
    cos, sin = sequence.cos[:, None], sequence.sin[:, None]
    return states * cos + half_turned(states) * sin


def half_turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)
