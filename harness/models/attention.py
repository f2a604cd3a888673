"""Queries and keys of chosen attention modules, seen as they pass, and biases put on the keys of others.

`ALL_ATTENTION_FUNCTIONS` is one object for the whole process. While at least one `watching` block is open, each
kernel name in use is wrapped once; the wrapper hands every call on to the same kernel and remembers the rotated
queries and keys of the modules that somebody watches. Blocks nest and run in several threads; the last one out unwraps.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from methods.base import PruningError


@dataclass(frozen=True)
class Capture:
    """One attention call. query: (B, h, q, hd); key: (B, h_kv, t, hd), both after RoPE; scaling multiplies logits.

    spend: told the FLOPs of each product of queries and keys, from shapes alone. bias: (B or 1, t) added to the logits
    of the keys, None without one.
    """

    query: Tensor
    key: Tensor
    scaling: float
    spend: Callable[[int], None] = lambda flops: None
    bias: Tensor | None = None

    def of_row(self, row: int, tokens: int) -> Capture:
        """One row of the batch, its padding behind `tokens` left out."""
        query, key = self.query[row : row + 1, :, :tokens], self.key[row : row + 1, :, :tokens]
        bias = None if self.bias is None else self.bias.expand(self.query.shape[0], -1)[row : row + 1, :tokens]
        return replace(self, query=query, key=key, bias=bias)

    def logits(self, rows: Tensor | slice, causal: bool) -> Tensor:
        """Pre-softmax logits of some query rows against all keys, float32. (h, q, t); batch row 0."""
        query = self.query[0, :, rows].float()  # (h, q, hd)
        key = self.key[0].float().repeat_interleave(self.query.shape[1] // self.key.shape[1], dim=0)  # (h, t, hd)
        logits = query @ key.transpose(1, 2) * self.scaling  # (h, q, t)
        self.spend(2 * logits.numel() * query.shape[-1])
        if self.bias is not None:
            logits = logits + self.bias[0]
        if causal:
            positions = torch.arange(key.shape[1], device=key.device)
            logits = logits.masked_fill(positions[None, :] > positions[rows][:, None], -torch.inf)
        return logits


class AttentionTap:
    """The process-wide wrapper around the attention registry. One instance exists: `TAP`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, list[list[Capture]]] = {}  # id(module) -> one list for each open block
        self._biases: dict[tuple[int, int], Iterator[Tensor]] = {}  # (id(module), thread) -> one for each call
        self._users: dict[str, int] = {}
        self._replaced: dict[str, Callable[..., Any] | None] = {}

    @contextmanager
    def watching(self, modules: Iterable[nn.Module], kernels: Iterable[str]) -> Iterator[dict[int, list[Capture]]]:
        """Captures of `modules` by id(module), one entry for each call, while the block is open.

        kernels: the attention implementations that the modules run under ("sdpa", "eager", "flash_attention_2").
        """
        captures: dict[int, list[Capture]] = {id(module): [] for module in modules}
        names = set(kernels) if captures else set()
        with self._lock:
            for name in names:
                self._install(name)
            for key, seen in captures.items():
                self._watched.setdefault(key, []).append(seen)
        try:
            yield captures
        finally:
            with self._lock:
                for key, seen in captures.items():
                    open_lists = [other for other in self._watched[key] if other is not seen]
                    self._watched.pop(key)
                    if open_lists:
                        self._watched[key] = open_lists
                for name in names:
                    self._release(name)

    @contextmanager
    def biasing(self, module: nn.Module, biases: Iterable[Tensor], kernel: str) -> Iterator[None]:
        """Within the block, the calls of `module` in this thread add the next of `biases`, (B or 1, t), to the logits
        of their keys. Raises PruningError under flash attention, which takes none."""
        if "flash" in kernel:
            raise PruningError(f"a key bias in the ViT needs --attention sdpa or eager, not {kernel}")
        mine = (id(module), threading.get_ident())
        with self._lock:
            self._install(kernel)
        self._biases[mine] = iter(biases)
        try:
            yield
        finally:
            del self._biases[mine]
            with self._lock:
                self._release(kernel)

    def _install(self, name: str) -> None:
        self._users[name] = self._users.get(name, 0) + 1
        if self._users[name] > 1:
            return
        local = ALL_ATTENTION_FUNCTIONS._local_mapping
        self._replaced[name] = local.get(name)
        original = ALL_ATTENTION_FUNCTIONS.get(name)
        ALL_ATTENTION_FUNCTIONS[name] = self._wrapper(original)

    def _release(self, name: str) -> None:
        self._users[name] -= 1
        if self._users[name]:
            return
        before = self._replaced.pop(name)
        if before is None:
            del ALL_ATTENTION_FUNCTIONS[name]
        else:
            ALL_ATTENTION_FUNCTIONS[name] = before

    def _wrapper(self, original: Callable[..., Any] | None) -> Callable[..., Any]:
        def attention(
            module: nn.Module,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            attention_mask: Tensor | None = None,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            waiting = self._biases.get((id(module), threading.get_ident())) if self._biases else None
            bias = None if waiting is None else next(waiting)
            for seen in self._watched.get(id(module), ()):
                seen.append(Capture(query, key, kwargs.get("scaling") or query.shape[-1] ** -0.5, bias=bias))
            if bias is not None:
                attention_mask = _with_bias(attention_mask, bias.to(query.dtype)[:, None, None])
            # "eager" is not in the registry: every modelling file has its own function of that name
            run = original or sys.modules[type(module).__module__].eager_attention_forward
            return run(module, query, key, value, attention_mask, *args, **kwargs)

        return attention


def _with_bias(mask: Tensor | None, bias: Tensor) -> Tensor:
    """An additive attention mask; mask: additive, or bool with True where a key is seen."""
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, torch.finfo(bias.dtype).min)
    return mask + bias


TAP = AttentionTap()
