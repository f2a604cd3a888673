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
from harness.models.sequence import Sequence, cut, mask_for
from harness.models.signals import peeks, read_signal, rotated, text_behind
from harness.models.sites import signals_read_at
from methods.base import IN_LLM, MissingSignal, Selection, Signal, Site
from methods.selection import reduce


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

    def behind(self, number: int) -> Sequence | None:
        """The prompt as decoder layer `number` has seen it in the prefill; None where nothing was cut so far."""
        return self._by_layer.get(number)

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
            self._embedded = hidden[0, index], hidden[0, text_behind(index, hidden.shape[1])]
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
        read = signals_read_at(self.signals, number)
        peeked = {layer: self._peek(layer, hidden) for layer in {s.layer for s in read if peeks(s, number)}}
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
                capture = replace(capture, query=rotated(capture.query, now), key=rotated(capture.key, now))
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
        turned = rotated(ones[:, None].float(), now)[0, 0]  # (T, head_dim)
        text, visual = turned[text_behind(now.index, now.length)], turned[now.index]
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


def selected_layers(sites: Mapping[Site, int | None]) -> dict[int, Site]:
    """The in-LLM sites of a plan by layer."""
    return {site.layer: site for site in sites if site.hook == IN_LLM}
