"""Loops of many small operations, which on a GPU spend their time on launches rather than on work.

A `Captured` loop runs as it is, unless it meets the same shape again on a CUDA device: then all of it becomes one CUDA
graph, launched at once. A shape met once would pay more for the graph than it gives.

Written without a GPU at hand, so graphs stay off (`GRAPHS`) until the tests marked `gpu` have passed on one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loop = Callable[[Tensor, int], Tensor]
GRAPHS = False
_MOST = 4  # graphs that are kept, and shapes that are remembered: each graph holds its matrix on the device


class Captured:
    """`loop(matrix, k)`, which must ask for the same operations whenever shape and k are the same, and never wait."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._replays: dict[tuple[object, ...], Callable[[Tensor], Tensor] | None] = {}  # None: met once

    def __call__(self, matrix: Tensor, k: int) -> Tensor:
        if not GRAPHS or matrix.device.type != "cuda":
            return self._loop(matrix, k)
        key = (matrix.device, matrix.dtype, *matrix.shape, k)
        if key not in self._replays:
            self._remember(key, None)
            return self._loop(matrix, k)
        replay = self._replays[key] or record(self._loop, matrix, k)
        self._remember(key, replay)
        return replay(matrix)

    def _remember(self, key: tuple[object, ...], replay: Callable[[Tensor], Tensor] | None) -> None:
        self._replays.pop(key, None)
        self._replays[key] = replay  # the latest is last
        while len(self._replays) > _MOST:
            del self._replays[next(iter(self._replays))]


def record(loop: Loop, matrix: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """The loop as one CUDA graph, to be called with matrices like this one. Waits for the device, once."""
    with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(matrix.device):
        entry = matrix.detach().clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries make their workspaces before the capture
            loop(entry, k)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            answer = loop(entry, k)

    @torch.no_grad()
    def replay(like: Tensor) -> Tensor:
        entry.copy_(like)
        graph.replay()
        return answer.clone()

    return replay
