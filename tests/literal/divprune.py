"""DivPrune as described: at each step the minimum over all rows chosen so far is taken afresh."""

from __future__ import annotations

import torch
from torch import Tensor


def divprune(tokens: Tensor, k: int) -> list[int]:
    """Indices in the order of choice; they repeat once all distinct vectors are chosen. tokens: (n >= 2, d)."""
    x = tokens.float()
    unit = x / x.norm(dim=-1, keepdim=True)
    distance = 1 - unit @ unit.T
    chosen = torch.zeros(k, dtype=torch.int64)
    for step in range(k):
        if step == 0:
            gap = distance.topk(2, dim=0, largest=False).values[1]
        else:
            gap = distance[chosen[:step]].min(dim=0).values
        chosen[step] = gap.argmax()
    return chosen.tolist()
