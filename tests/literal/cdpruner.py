"""CDPruner as described: CLIP's relevance, the conditional kernel, and greedy maximum a posteriori, token by token."""

from __future__ import annotations

import torch
from torch import Tensor


def clip_relevance(patches: Tensor, segments: Tensor) -> Tensor:
    """Relevance of each token, scaled over all crops. patches: (b, n, e), segments: (s, e) -> (b, n)."""
    patches = patches / patches.norm(dim=-1, keepdim=True)
    segments = segments / segments.norm(dim=-1, keepdim=True)
    score = -(patches @ segments.T).mean(dim=-1)
    return (score - score.min() + 1e-6) / (score.max() - score.min())


def cdpruner(tokens: Tensor, relevance: Tensor, t: int) -> list[int]:
    """Chosen indices of one crop in the order of choice. tokens: (n, d), relevance: (n,)."""
    x = tokens.float()
    unit = x / x.norm(dim=-1, keepdim=True)
    kernel = relevance[:, None] * (unit @ unit.T) * relevance[None, :]
    c = torch.zeros(t, len(x))
    d = kernel.diagonal().clone()
    chosen = []
    for i in range(t):
        j = int(d.argmax())
        chosen.append(j)
        e = (kernel[j] - torch.einsum("t,tn->n", c[:i, j], c[:i])) / d[j].sqrt()
        c[i] = e
        d -= e.square()
        d[j] = -torch.inf
    return chosen
