"""SAINT as described: the bipartite drop (ViT and LLM) and the iterative drop on the full graph."""

from __future__ import annotations

import torch
from torch import Tensor


def bipartite(metric: Tensor, tau: float, k: int, gamma: float) -> tuple[Tensor, int]:
    """Scores of the even tokens, (b, ceil(n / 2)), and how many of them go. metric: (b, n, d) image tokens alone."""
    unit = metric / metric.norm(dim=-1, keepdim=True)
    s = unit[:, 0::2] @ unit[:, 1::2].transpose(1, 2)
    v = (s >= tau).float()
    c = v.sum(dim=-1)
    r = int((c >= k).sum(dim=-1).float().mean())
    w = (v * s).sum(dim=-1) / c.clamp(min=1)
    score = torch.where(c > 0, c * torch.exp(gamma * (w - tau)), s.mean(dim=-1))
    return score, r


def drop_vit(metric: Tensor, n_special: int, tau: float, k: int = 5, gamma: float = 10.0) -> Tensor:
    """Kept places in output order, (b, m): special tokens, even ones by descending score, odd ones."""
    b, t, _ = metric.shape
    score, r = bipartite(metric[:, n_special:], tau, k, gamma)
    place = torch.arange(t).expand(b, t)
    if r <= 0:
        return place
    special, image = place[:, :n_special], place[:, n_special:]
    stay = score.argsort(dim=1, descending=True, stable=True)[:, r:]
    return torch.cat([special, image[:, 0::2].gather(1, stay), image[:, 1::2]], dim=1)


def drop_llm(keys: Tensor, tau: float, k: int = 5, gamma: float = 10.0) -> Tensor:
    """Kept image tokens, (m,) ascending. keys: (1, n, d), mean over KV heads, rotated."""
    return drop_vit(keys, 0, tau, k, gamma)[0].sort().values


def full_graph(keys: Tensor, keep_num: int, r: int = 16) -> tuple[Tensor, list[int]]:
    """Kept patches, ascending, and the drops of each round. keys: (n, d) of patches; keep_num counts CLS."""
    unit = keys / keys.norm(dim=-1, keepdim=True)
    s = unit @ unit.T
    alive, drops = torch.arange(len(keys)), []
    target = keep_num - 1
    while len(alive) > target:
        score = s[alive][:, alive].sum(dim=1)
        r = min(len(alive) - target, len(alive) // r)
        drops.append(r)
        gone = score.argsort(descending=True, stable=True)[:r]
        alive = alive[~torch.isin(torch.arange(len(alive)), gone)]
    return alive, drops
