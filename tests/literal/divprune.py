"""DivPrune as described, step by step: at each step the minimum over all chosen rows is taken afresh."""

from __future__ import annotations

import torch
from torch import Tensor


def divprune(tokens: Tensor, k: int) -> list[int]:
    """Chosen indices in the order of choice; indices repeat once all distinct vectors are chosen."""
    x = tokens.float()
    unit = x / x.norm(dim=-1, keepdim=True)
    distance = 1 - unit @ unit.T
    n = len(x)
    if k == 0:
        return []
    seed = [sorted(distance[:, j].tolist())[1] for j in range(n)]
    chosen = [max(range(n), key=lambda j: seed[j])]
    while len(chosen) < k:
        gap = torch.stack([distance[i] for i in chosen]).min(dim=0).values
        chosen.append(int(gap.argmax()))
    return chosen
