"""FastV's pruning step as described: steps 2 to 5 of the prefill, on the attention of layer K-1."""

from __future__ import annotations

import torch
from torch import Tensor


def kept_positions(probabilities: Tensor, r: float, start: int, n: int) -> list[int]:
    """Kept absolute positions, ascending. probabilities: (h, S, S) of layer K-1; visual span [start, start + n)."""
    heads, length, _ = probabilities.shape
    p = torch.zeros(length)
    for head in range(heads):
        p += probabilities[head, length - 1] / heads
    n_keep = round(n * (1 - r))
    ranked = sorted(range(n), key=lambda i: (-float(p[start + i]), i))
    before, after = range(start), range(start + n, length)
    return sorted({*before, *(start + i for i in ranked[:n_keep]), *after})
