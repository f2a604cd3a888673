"""Maths that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Rows of x (n, d) scaled to length 1 in float32; a zero row stays zero."""
    x = x.float()
    return x / x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def top_k(scores: Tensor, k: int) -> Tensor:
    """Indices of the k highest scores, ascending. scores: (n,). Ties go to the lower index."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return order[:k].sort().values  # (k,)


def share(total: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """`total` split over images in proportion to their sizes, by largest remainder; ties to the earlier image.

    Never more than an image has. Raises ValueError if total > sum(sizes).
    """
    whole = sum(sizes)
    if total > whole:
        raise ValueError(f"cannot share {total} tokens among images of {sizes}")
    parts = [total * size // whole for size in sizes]
    remainders = sorted(range(len(sizes)), key=lambda i: (-(total * sizes[i] % whole), i))
    for i in remainders[: total - sum(parts)]:
        parts[i] += 1
    return tuple(parts)
