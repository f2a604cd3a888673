"""DBDPC as described, steps 6 to 12: one token after the other."""

from __future__ import annotations

import torch
from torch import Tensor


def labels(keys: Tensor, pruned_keys: Tensor, cutoff: float, alpha: float) -> list[int]:
    """The centre of each kept and then of each pruned token, -1 = discarded. keys: (m, d), pruned_keys: (M, d)."""
    m = len(keys)
    distance = torch.empty(m, m)
    for i in range(m):
        for j in range(m):
            apart = 1 - torch.cosine_similarity(keys[i], keys[j], dim=0)
            distance[i, j] = 0 if i == j else max(float(apart), 0.0)
    rho = [sum(float(torch.exp(-((distance[i, j] / 2) ** 2))) for j in range(m)) for i in range(m)]
    walk = sorted(range(m), key=lambda i: (rho[i], i))[::-1]
    centers: list[int] = []
    for i in walk:
        if all(distance[i, j] > cutoff for j in centers):
            centers.append(i)
    centers.sort()
    out = [min(centers, key=lambda j: float(distance[i, j])) for i in range(m)]
    for key in pruned_keys:
        gaps = [float(1 - torch.cosine_similarity(key, keys[j], dim=0)) for j in centers]
        nearest = min(range(len(centers)), key=gaps.__getitem__)
        out.append(centers[nearest] if gaps[nearest] <= alpha * cutoff else -1)
    return out
