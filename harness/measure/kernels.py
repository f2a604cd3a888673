"""Which attention kernels one repetition really ran, by stage: "sdpa" alone does not say, torch chooses by the mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

OTHER_STAGE = "other"
_ATTENTION = ("scaled_dot_product", "flash_attn")  # parts of the operators' names
_KINDS = (("flash", "flash"), ("efficient", "memory-efficient"), ("cudnn", "cudnn"), ("", "fused"))
_SOFTMAX = torch.ops.aten._softmax.default  # what an unfused attention ends in


class KernelWatch(TorchDispatchMode):
    """A clock that counts attention calls instead of time. calls: (stage, kernel) -> calls.

    Kernels: "flash", "memory-efficient", "cudnn" or "fused" where torch or a package fused them, else "unfused":
    softmax between two products, as eager attention and torch's own fallback do it. Inside `select` a softmax is the
    method's, so only fused calls count there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[str, str]] = Counter()
        self._running = [OTHER_STAGE]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._running.append(name)
        try:
            yield
        finally:
            self._running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kernel = kernel_of(func, in_selection=self._running[-1] == "select")
        if kernel:
            self.calls[self._running[-1], kernel] += 1
        return func(*args, **(kwargs or {}))


def kernel_of(operator: Any, in_selection: bool = False) -> str | None:
    """The kernel's name when an operator is an attention, else None."""
    if operator is _SOFTMAX:
        return None if in_selection else "unfused"
    name = str(operator)
    if not any(part in name for part in _ATTENTION):
        return None
    return next(kind for part, kind in _KINDS if part in name)


def attention_calls(run: Callable[[KernelWatch], Any]) -> Mapping[tuple[str, str], int]:
    """(stage, kernel) -> calls in one untimed repetition. `run` marks its stages on the watch that it is given."""
    watch = KernelWatch()
    with watch:
        run(watch)
    return dict(watch.calls)
