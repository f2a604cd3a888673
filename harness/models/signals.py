"""Signals of ViT blocks, read from captured queries and keys, of images or of windows that attend to themselves."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.models.attention import Capture
from harness.models.sequence import Sequence
from harness.models.vision_state import Segment, VisionState
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


_QUERIES = ("extra", "cls", "visual", "received")


def vit_signal(signal: Signal, state: VisionState, captures: list[Capture]) -> Tensor:
    """A declared signal over the rows of `state`, as methods.base.Signal says.

    captures: of the block whose attention has just run over `state`: one an image, or one of all images packed or
    batched. Raises MissingSignal for what the tower cannot give.
    """
    per_image = image_by_image(captures, state.lengths)
    if signal.kind in ("queries", "keys"):
        return _as_rows(_states(signal, state, per_image), state)
    if signal.kind not in ("rows", "logits") or signal.queries not in _QUERIES:
        raise MissingSignal(f"the ViT gives queries, keys and rows of {', '.join(_QUERIES)} queries, not {signal}")
    if signal.queries == "received" and signal.kind != "rows":
        raise MissingSignal(f"attention is received after the softmax only: ask for rows, not {signal}")
    if signal.queries == "visual" and len(state.segments) > 1:
        raise MissingSignal("rows of all visual queries are given for one image at a time")
    tokens = []
    for segment, capture in zip(state.segments, per_image, strict=True):
        rows = _query_rows(signal.queries, segment, state)
        if signal.queries == "received":
            values = mean_row(capture, rows)  # (h, 1, tokens)
        else:
            logits = capture.logits(rows, causal=False)
            values = logits.softmax(-1) if signal.kind == "rows" else logits  # (h, q, tokens)
        tokens.append((values if signal.per_head else values.mean(0)).movedim(-1, 0))  # (tokens, ...)
    values = _as_rows(torch.cat(tokens), state).movedim((0, 1), (-2, -1))  # ([h,] q, n + a, g)
    return values.squeeze(-3) if values.shape[-3] == 1 and signal.queries != "visual" else values


def window_signal(signal: Signal, state: VisionState, captures: list[Capture], windows: tuple[int, ...]) -> Tensor:
    """The same for a block whose tokens attend within sequences of `windows` tokens, rows in the order of `state`.

    Queries, keys, and rows of "received" queries: a patch gets nothing from other windows, an aggregate nothing at all.
    Raises MissingSignal for the others.
    """
    per_window = image_by_image(captures, windows)
    if signal.kind in ("queries", "keys"):
        return _as_rows(_states(signal, state, per_window), state)
    if signal.kind != "rows" or signal.queries != "received":
        raise MissingSignal(
            f"block {signal.layer} of this ViT attends within windows, where queries, keys and rows of received "
            f"queries are known, not {signal}; ask for a block of full attention"
        )
    sums = []
    for capture, tokens in zip(per_window, windows, strict=True):
        row = mean_row(capture, torch.arange(tokens, device=state.hidden.device)) * tokens  # (h, 1, tokens)
        sums.append((row if signal.per_head else row.mean(0)).movedim(-1, 0))
    values = _as_rows(torch.cat(sums), state).movedim((0, 1), (-2, -1)).squeeze(-3)  # ([h,] n + a, g)
    # a mean over all rows of the image: a window's sum is over its own rows, those of other windows ask it nothing
    asking = torch.tensor([segment.units * state.patches for segment in state.segments], device=values.device)
    share = torch.nn.functional.pad(1 / asking[state.image], (0, values.shape[-2] - state.image.shape[0]))  # (n + a,)
    return values * share[:, None]


def packed_signal(signal: Signal, values: Tensor, g: int) -> Tensor:
    """A signal over single patches as rows of units of `g` of them."""
    if signal.kind in ("queries", "keys"):
        return values.view(-1, g, *values.shape[2:])
    return values.reshape(*values.shape[:-2], -1, g)


def signal_with_cls_rows(signal: Signal, values: Tensor, segments: tuple[Segment, ...]) -> Tensor:
    """A signal with zeros for the prefix tokens, which stand in front of each image's rows."""
    dim = 0 if signal.kind in ("queries", "keys") else values.ndim - 2
    parts = values.split([segment.units for segment in segments], dim)
    pieces = []
    for part, segment in zip(parts, segments, strict=True):
        pieces += [part.new_zeros((*part.shape[:dim], segment.prefix, *part.shape[dim + 1 :])), part]
    return torch.cat(pieces, dim)


def image_by_image(captures: list[Capture], lengths: tuple[int, ...]) -> list[Capture]:
    """One capture an image, from one an image, one of a packed call (flash attention) or one of a batch of tiles."""
    if len(captures) == len(lengths):
        return captures
    whole = captures[-1]
    if whole.query.shape[0] == len(lengths):
        return [whole.of_row(row, tokens) for row, tokens in enumerate(lengths)]
    parts = zip(whole.query.split(lengths, dim=2), whole.key.split(lengths, dim=2), strict=True)
    return [replace(whole, query=query, key=key) for query, key in parts]


def mean_row(capture: Capture, rows: Tensor, at_once: int = 512) -> Tensor:
    """Attention that each token receives, the mean over query rows, `at_once` at a time. rows (q,) -> (h, 1, t)."""
    total = torch.zeros((), device=rows.device)
    for some in rows.split(at_once):
        total = total + capture.logits(some, causal=False).softmax(-1).sum(1, keepdim=True)
    return total / rows.shape[0]


def _query_rows(queries: str, segment: Segment, state: VisionState) -> Tensor:
    """Places of the asking tokens within their image."""
    device = state.hidden.device
    if queries == "extra":
        return torch.arange(segment.extra, device=device)
    if queries == "cls":
        if not segment.prefix:
            raise MissingSignal("this ViT has no CLS token; ask for rows of received queries")
        return torch.arange(segment.extra, segment.extra + 1, device=device)
    return torch.arange(segment.front, segment.front + segment.units * state.patches, device=device)


def _states(signal: Signal, state: VisionState, per_image: list[Capture]) -> Tensor:
    """Queries or keys of all tokens, (N, h, head_dim); turned back where the signal wants them before rotation."""
    states = [capture.query if signal.kind == "queries" else capture.key for capture in per_image]
    packed = torch.cat([one[0].transpose(0, 1) for one in states])
    if signal.rope or state.cos is None:
        return packed
    cos, sin = state.cos[:, None].float(), state.sin[:, None].float()
    return (packed.float() * cos - half_turned(packed.float()) * sin).to(packed.dtype)


def _as_rows(packed: Tensor, state: VisionState) -> Tensor:
    """(N, ...) as the view's rows, (n + a, g, ...): an aggregate's values stand in patch 0, zeros in the others."""
    _, units, aggregates = state.split(packed)
    carried = [
        torch.cat([row[None], row.new_zeros(state.patches - 1, *row.shape)])[None]
        for row in aggregates
        if row is not None
    ]
    return torch.cat([units, *carried]) if carried else units
