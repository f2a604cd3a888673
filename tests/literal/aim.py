"""AIM as described: one stage of merging, and the importance that every layer of a prefill computes for all tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def merge(metric: Tensor, r: int, x: Tensor) -> Tensor:
    """Tokens after one stage, those without a partner first. metric: (t, c), x: (t, d)."""
    t = len(metric)
    r = min(r, t // 2)
    if r <= 0:
        return x
    unit = metric / metric.norm(dim=-1, keepdim=True)
    best, partner = (unit[0::2] @ unit[1::2].T).max(dim=1)
    ranking = best.argsort(descending=True, stable=True)
    src, unmerged = ranking[:r], ranking[r:]
    odd = x[1::2].clone()
    count = torch.ones(len(odd), dtype=x.dtype)
    odd.index_add_(0, partner[src], x[0::2][src])
    count.index_add_(0, partner[src], torch.ones(r, dtype=x.dtype))
    return torch.cat([x[0::2][unmerged], odd / count[:, None]])


def importance(logits: Tensor, tau: float = 0.1, iterations: int = 5) -> Tensor:
    """Importance of each token, (n,). logits: (h, n, n), masked entries -inf or the lowest number."""
    heads, n, _ = logits.shape
    transition = torch.softmax(logits.float() / tau, dim=-1)
    v = torch.full((heads, 1, n), 1 / n)
    for _ in range(iterations):
        v = v @ transition
    return v[:, 0].square().mean(dim=0).sqrt()


def kept(score: Tensor, protected: Tensor, alive: Tensor, rho: float) -> Tensor:
    """Which tokens later layers may see, (n,) bool: the rule behind one layer. score: (n,), the masks: (n,) bool."""
    s = score.clone()
    s[~alive] = -1
    s[protected] = 1
    n, text = len(s), int(protected.sum())
    k = int((n - text) * rho + text)
    keep = torch.zeros(n, dtype=torch.bool)
    keep[s.argsort(descending=True, stable=True)[:k]] = True
    return alive & keep


def retain_rate(layer: int, start: int, ramp: int = 8) -> float:
    """Share of the visual tokens that stay behind a layer."""
    return 1.0 if layer < start else max(0.0, 1 - (layer - start + 1) / ramp)
