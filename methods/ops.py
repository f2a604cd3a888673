"""Maths that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor

_STRIP = 256  # rows multiplied at once


def unit(x: Tensor) -> Tensor:
    """Rows of x (n, d) scaled to length 1 in float32; a row shorter than 1e-12 counts as zero and stays near it."""
    x = x.float()
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def cosines(x: Tensor) -> Tensor:
    """Cosines of all rows with each other, (n, n) float32, without gradient. x: (n, d), any float dtype.

    Each pair is multiplied once: strips of rows from the diagonal on, the other half mirrored.
    """
    direction, n = unit(x.detach()), len(x)
    out = direction.new_empty(n, n)
    for start in range(0, n, _STRIP):
        end = start + _STRIP
        torch.mm(direction[start:end], direction[start:].T, out=out[start:end, start:])
        out[end:, start:end] = out[start:end, end:].T
    return out


def cosines_flops(n: int, d: int) -> int:
    """FLOPs of `cosines` of n rows of width d."""
    return sum(2 * d * min(_STRIP, n - start) * (n - start) for start in range(0, n, _STRIP))


def top_k(scores: Tensor, k: int) -> Tensor:
    """Indices of the k highest scores, ascending. scores: (n,). Ties go to the lower index."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return order[:k].sort().values  # (k,)


def share(total: int, sizes: tuple[int, ...], least: int = 0) -> tuple[int, ...]:
    """`total` tokens split over images in proportion to their sizes; ties to the earlier image.

    Each image gets at least `least` tokens (or all it has), never more than it has. A larger total never gives an
    image less, so that successive cuts nest: Sainte-Lague's rule (seat j of an image of n stands at (2j + 1) / n, the
    lowest seats are filled first), which largest remainders do not satisfy. Raises ValueError if it cannot be done.
    """
    whole, floor = sum(sizes), [min(least, n) for n in sizes]
    if not sum(floor) <= total <= whole:
        raise ValueError(f"cannot share {total} tokens among images of {sizes}, at least {least} each")
    parts = [max(low, (2 * total * n + whole) // (2 * whole)) for low, n in zip(floor, sizes, strict=True)]
    images = range(len(sizes))
    while sum(parts) < total:
        first = min((i for i in images if parts[i] < sizes[i]), key=lambda i: ((2 * parts[i] + 1) / sizes[i], i))
        parts[first] += 1
    while sum(parts) > total:
        last = max((i for i in images if parts[i] > floor[i]), key=lambda i: ((2 * parts[i] - 1) / sizes[i], i))
        parts[last] -= 1
    return tuple(parts)
