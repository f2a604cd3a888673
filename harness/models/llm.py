"""Pruning inside the LLM: pre-hooks on the decoder layers, for any decoder with q_proj / k_proj attention.

During the prefill a hook at a planned layer shortens the hidden states; from there on every layer gets the rotary
tables, the mask and the cache length that belong to the shorter sequence. During decoding, layers whose positions
were renumbered or whose keys carry a size bias get their own tables and mask as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.attention import Capture
from harness.models.clock import Clock, Untimed
from harness.models.prompt import VisualRows
from methods.base import IN_LLM, MissingSignal, PruningError, Selection, Signal, Site
from methods.ops import unit
from methods.selection import reduce, reduce_sizes


@dataclass(frozen=True)
class Sequence:
    """The prompt inside the LLM between two layers. index: (n,) places of the visual tokens among the T tokens."""

    index: Tensor
    text_index: Tensor  # (m,) places of the others
    rows: VisualRows
    cos: Tensor  # (1, T, head_dim)
    sin: Tensor
    log_size: Tensor | None = None  # (T,) bias on the keys, None without one
    renumbered: bool = False

    @property
    def length(self) -> int:
        return self.index.shape[0] + self.text_index.shape[0]


def cut(
    sequence: Sequence,
    hidden: Tensor,
    selection: Selection,
    rotary: Callable[[int], tuple[Tensor, Tensor]],
    policy: str,
) -> tuple[Sequence, Tensor]:
    """The sequence and hidden states (B, T', d) after a selection over its visual rows.

    rotary(length) gives the tables of positions 0..length-1. policy: the positions to use where the selection has
    none. Output rows fill the survivors' places in their own order, so that images stay apart.
    """
    positions = policy if selection.positions is None else selection.positions
    if selection.aggregate is not None or not isinstance(positions, str):
        raise PruningError("inside the LLM a selection cannot aggregate or give ids; merge with `assign` instead")
    source = sequence.index[selection.keep]  # (k,) in output order
    order = torch.sort(torch.cat([sequence.text_index, source])).values  # (T',)
    index = torch.searchsorted(order, torch.sort(source).values)
    text_index = torch.searchsorted(order, sequence.text_index)
    shorter = hidden[:, order]
    visual = hidden[:, sequence.index]
    shorter[:, index] = torch.stack([reduce(selection, one) for one in visual])
    rows = VisualRows(
        sequence.rows.image[selection.keep],
        sequence.rows.unit[selection.keep],
        sequence.rows.kind[selection.keep],
        reduce_sizes(selection, sequence.rows.size),
        _counts(sequence.rows, selection),
    )
    renumbered = sequence.renumbered or positions == "renumber"
    if renumbered:
        cos, sin = rotary(order.shape[0])
    else:
        cos, sin = sequence.cos[:, order], sequence.sin[:, order]
        cos[:, index], sin[:, index] = sequence.cos[:, source], sequence.sin[:, source]
    log_size = None
    if selection.key_bias or sequence.log_size is not None:
        log_size = torch.zeros(order.shape[0], device=hidden.device)
        log_size[index] = rows.size.log()
    return Sequence(index, text_index, rows, cos, sin, log_size, renumbered), shorter


def _counts(rows: VisualRows, selection: Selection) -> tuple[int, ...]:
    if len(rows.counts) == 1:
        return (selection.keep.shape[0],)
    image = rows.image[selection.keep]
    return tuple(torch.bincount(image, minlength=len(rows.counts)).tolist())  # several images: one wait


def mask_for(queries: int, keys: int, bias: Tensor | None, kernel: str, like: Tensor) -> Tensor | None:
    """The attention mask of a layer: None where the kernel's own causal rule is right.

    bias: (t,) additive on the first t keys, or None. Raises PruningError for a bias under flash attention.
    """
    if bias is not None and "flash" in kernel:
        raise PruningError(f"a key bias needs --attention sdpa or eager, not {kernel}")
    if bias is None and (queries == 1 or (kernel != "eager" and queries == keys)):
        return None
    place = torch.arange(keys, device=like.device)
    visible = place[None, :] <= place[keys - queries :, None]  # (queries, keys)
    mask = torch.zeros(queries, keys, dtype=like.dtype, device=like.device)
    mask = mask.masked_fill(~visible, torch.finfo(like.dtype).min)
    if bias is not None:
        mask[:, : bias.shape[0]] += bias.to(like.dtype)
    return mask[None, None]


@dataclass
class _Seen:
    """Captures of one layer, and where today's visual rows stand among the rows of that time."""

    capture: Capture
    index: Tensor


@dataclass
class Decoder:
    """The decoder that is hooked. rotary_at(positions (R, T), like) -> cos, sin (1, T, head_dim)."""

    layers: nn.ModuleList
    kernel: str
    rotary_at: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    position_rows: int


Decide = Callable[[Site, Tensor, Sequence, Mapping[Signal, Tensor]], Selection | None]


@dataclass
class Surgery:
    """What happens to one prompt on its way through the LLM. Used for one prefill and the decoding after it.

    spend: told the FLOPs of the signals.
    """

    decoder: Decoder
    sites: Mapping[int, Site]
    signals: tuple[Signal, ...]
    decide: Decide
    policy: str
    start: VisualRows
    spans: tuple[tuple[int, int], ...]
    captures: Mapping[int, list[Capture]] = field(default_factory=dict)
    entering: list[int] = field(default_factory=list)
    history: list[tuple[Site, Selection, VisualRows]] = field(default_factory=list)
    _sequence: Sequence | None = None
    _by_layer: dict[int, Sequence] = field(default_factory=dict)
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _cut_from: int | None = None
    _embedded: tuple[Tensor, Tensor] | None = None
    spend: Callable[[int], None] = lambda flops: None
    clock: Clock = field(default_factory=Untimed)

    @contextmanager
    def installed(self) -> Iterator[None]:
        handles = [
            layer.register_forward_pre_hook(self._hook(number), with_kwargs=True)
            for number, layer in enumerate(self.decoder.layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def reduce_features(self, features: Tensor) -> Tensor:
        """Features of the visual tokens that entered layer 0, (n, d), as today's visual tokens need them."""
        for _, selection, _ in self.history:
            features = reduce(selection, features)
        return features

    @property
    def rows(self) -> VisualRows:
        """The visual tokens alive now."""
        return self._sequence.rows if self._sequence else self.start

    @property
    def visual_mask(self) -> Tensor | None:
        """(1, T) bool, True at today's visual tokens; None before the first layer."""
        if self._sequence is None:
            return None
        index = self._sequence.index
        return torch.zeros(1, self._sequence.length, dtype=torch.bool, device=index.device).index_fill(1, index, True)

    def _hook(self, number: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            cache = kwargs.get("past_key_values")
            past = cache.get_seq_length(number) if cache is not None else 0
            if past:
                changed = self._decoding(number, hidden, past)
            else:
                hidden, changed = self._prefill(number, hidden, kwargs)
            if changed is None:
                return None
            kwargs = {**kwargs, **changed}
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return hook

    def _prefill(self, number: int, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any] | None]:
        if number == 0:
            self._begin(hidden, kwargs["position_embeddings"])
        assert self._sequence is not None
        self._collect(number - 1)
        if number in self.sites:
            with self.clock.stage("select"):
                hidden = self._cut(number, hidden)
        self.entering.append(hidden.shape[1] - self._sequence.text_index.shape[0])
        if self._cut_from is None:
            return hidden, None
        now = self._sequence
        self._by_layer[number] = now
        mask = mask_for(now.length, now.length, now.log_size, self.decoder.kernel, hidden)
        changed = {"position_embeddings": (now.cos, now.sin), "attention_mask": mask, "position_ids": None}
        return hidden, changed

    def _begin(self, hidden: Tensor, tables: tuple[Tensor, Tensor]) -> None:
        device = hidden.device
        index = torch.cat([torch.arange(start, end, device=device) for start, end in self.spans])
        text, cursor = [], 0
        for start, end in (*self.spans, (hidden.shape[1], hidden.shape[1])):
            text.append(torch.arange(cursor, start, device=device))
            cursor = end
        self._sequence = Sequence(index, torch.cat(text), self.start, tables[0][:1], tables[1][:1])
        self._by_layer, self._seen, self._cut_from = {}, {}, None
        if any(signal.kind == "affinity" for signal in self.signals):
            self._embedded = hidden[0, index], hidden[0, _text_behind(index, hidden.shape[1])]
        self.entering.clear()
        self.history.clear()

    def _collect(self, number: int) -> None:
        """Remember the captures of the layer that has just run."""
        if number < 0 or not any(s.tower == "llm" and s.layer == number for s in self.signals):
            return
        captured = self.captures.get(id(self.decoder.layers[number].self_attn))
        if captured:
            assert self._sequence is not None
            self._seen[number] = _Seen(captured[-1], self._sequence.index)
            captured.clear()

    def _cut(self, number: int, hidden: Tensor) -> Tensor:
        assert self._sequence is not None
        site = self.sites[number]
        read = [s for s in self.signals if s.tower == "llm" and s.kind != "question" and s.at in (None, number)]
        peeked = {layer: self._peek(layer, hidden) for layer in {s.layer for s in read if _peeks(s, number)}}
        signals = {s: self._signal(s, peeked) for s in read}
        selection = self.decide(site, hidden[0, self._sequence.index], self._sequence, signals)
        if selection is None:
            return hidden
        self._sequence, hidden = cut(self._sequence, hidden, selection, self._renumbering(hidden), self.policy)
        self._seen = {layer: replace(seen, index=seen.index[selection.keep]) for layer, seen in self._seen.items()}
        self.history.append((site, selection, self._sequence.rows))
        self._cut_from = number if self._cut_from is None else self._cut_from
        return hidden

    def _renumbering(self, like: Tensor) -> Callable[[int], tuple[Tensor, Tensor]]:
        def tables(length: int) -> tuple[Tensor, Tensor]:
            numbers = torch.arange(length, device=like.device).expand(self.decoder.position_rows, -1)
            return self.decoder.rotary_at(numbers, like)

        return tables

    def _signal(self, signal: Signal, peeked: Mapping[int, Capture]) -> Tensor:
        now = self._sequence
        assert now is not None
        if signal.kind == "affinity":
            return self._affinity()
        if signal.kind == "gravity":
            return self._gravity(now)
        if signal.layer in peeked:
            capture = peeked[signal.layer]
            if signal.rope:
                capture = replace(capture, query=_rotated(capture.query, now), key=_rotated(capture.key, now))
            return read_signal(signal, capture, now.index, causal=True)
        if signal.layer not in self._seen:
            raise MissingSignal(f"{signal} was not captured; is the kernel {self.decoder.kernel} wrapped?")
        if not signal.rope:
            raise MissingSignal(f"{signal}: layer {signal.layer} has run and its states are rotated; ask for rope=True")
        seen = self._seen[signal.layer]
        return read_signal(signal, replace(seen.capture, spend=self.spend), seen.index, causal=True)

    def _peek(self, number: int, hidden: Tensor) -> Capture:
        """Queries and keys, not rotated yet, that decoder layer `number` would compute from today's hidden states."""
        layer = self.decoder.layers[number]
        attention = layer.self_attn
        states = layer.input_layernorm(hidden[:1])
        query, key = (
            norm(project(states).unflatten(-1, (-1, attention.head_dim))).transpose(1, 2)
            for project, norm in (
                (attention.q_proj, getattr(attention, "q_norm", nn.Identity())),
                (attention.k_proj, getattr(attention, "k_norm", nn.Identity())),
            )
        )
        self.spend(2 * (query.numel() + key.numel()) * states.shape[-1])
        return Capture(query, key, attention.scaling, self.spend)

    def _affinity(self) -> Tensor:
        assert self._embedded is not None
        visual, text = self._embedded
        self.spend(2 * visual.shape[0] * text.numel())
        return visual.float() @ text.float().T  # (n of layer 0, m)

    def _gravity(self, now: Sequence) -> Tensor:
        ones = torch.ones_like(now.cos)
        rotated = _rotated(ones[:, None].float(), now)[0, 0]  # (T, head_dim)
        text, visual = rotated[_text_behind(now.index, now.length)], rotated[now.index]
        self.spend(2 * visual.shape[0] * text.numel())
        return text @ visual.T * self.decoder.layers[0].self_attn.scaling  # (m, n)

    def _decoding(self, number: int, hidden: Tensor, past: int) -> dict[str, Any] | None:
        prompt = self._by_layer.get(number)
        if prompt is None:
            return None
        new = hidden.shape[1]
        changed: dict[str, Any] = {
            "attention_mask": mask_for(new, past + new, prompt.log_size, self.decoder.kernel, hidden),
            "position_ids": None,
        }
        if prompt.renumbered:
            numbers = torch.arange(past, past + new, device=hidden.device).expand(self.decoder.position_rows, -1)
            changed["position_embeddings"] = self.decoder.rotary_at(numbers, hidden)
        return changed


def read_signal(signal: Signal, capture: Capture, index: Tensor, causal: bool) -> Tensor:
    """A declared signal from a capture, its columns restricted to the tokens at `index` (n,)."""
    if signal.kind in ("queries", "keys"):
        states = capture.query if signal.kind == "queries" else capture.key
        return states[0, :, index].transpose(0, 1)  # (n, h, hd)
    if signal.kind == "cosines":
        directions = unit(capture.key[0, :, index].transpose(0, 1).flatten(1))  # (n, h_kv * hd)
        capture.spend(2 * directions.shape[0] * directions.numel())
        return directions @ directions.T
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
        wanted = _text_behind(index, length)
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


def _text_behind(index: Tensor, length: int) -> Tensor:
    """Places (m,) of the text behind the first visual token. Waits for the device: a count that only it knows."""
    place = torch.arange(length, device=index.device)
    is_text = torch.ones(length, dtype=torch.bool, device=index.device).index_fill(0, index, False)
    return place[is_text & (place > index[0])]


def _peeks(signal: Signal, site: int) -> bool:
    return signal.kind not in ("affinity", "gravity") and signal.layer >= site


def _rotated(states: Tensor, sequence: Sequence) -> Tensor:
    cos, sin = sequence.cos[:, None], sequence.sin[:, None]
    return states * cos + _half(states) * sin


def _half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def selected_layers(sites: Mapping[Site, int | None]) -> dict[int, Site]:
    """The in-LLM sites of a plan by layer."""
    return {site.layer: site for site in sites if site.hook == IN_LLM}
