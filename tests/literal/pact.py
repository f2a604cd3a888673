"""DBDPC as described, steps 6 to 12: the walk asks one token after the other, the means are made cluster by cluster."""

from __future__ import annotations

import torch
from torch import Tensor


def labels(keys: Tensor, pruned_keys: Tensor, cutoff: float, alpha: float) -> list[int]:
    """The centre of each kept and then of each pruned token, -1 = discarded. keys: (m, d), pruned_keys: (M, d)."""
    unit = keys / keys.norm(dim=-1, keepdim=True)
    distance = (1 - unit @ unit.T).clamp(min=0).fill_diagonal_(0)
    rho = torch.exp(-((distance / 2) ** 2)).sum(dim=1)
    walk = rho.argsort(stable=True).flip(0)
    centers: list[int] = []
    for i in walk.tolist():
        if bool((distance[i, centers] > cutoff).all()):
            centers.append(i)
    centers.sort()
    out = [centers[slot] for slot in distance[:, centers].argmin(dim=1).tolist()]
    if len(pruned_keys):
        apart = 1 - (pruned_keys / pruned_keys.norm(dim=-1, keepdim=True)) @ unit[centers].T
        gap, slot = apart.min(dim=1)
        for near, nearest in zip(gap.tolist(), slot.tolist(), strict=True):
            out.append(centers[nearest] if near <= alpha * cutoff else -1)
    return out


def merged(hidden: Tensor, label: list[int]) -> tuple[list[int], Tensor]:
    """Sizes and means (C, d) of the clusters, centres ascending. hidden: of the kept and then the pruned tokens."""
    sizes, means = [], []
    cluster = torch.tensor(label)
    for center in sorted(set(label) - {-1}):
        members = hidden[cluster == center]
        sizes.append(len(members))
        means.append(members.mean(dim=0))
    return sizes, torch.stack(means)
