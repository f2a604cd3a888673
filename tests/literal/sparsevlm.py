"""SparseVLM's raters, ranking and clustering as described, one token after the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def raters(visual: Tensor, text: Tensor) -> tuple[list[int], Tensor]:
    """Places of the raters among the text, and the score (T,) of all. visual: (n, d), text: (T, d) embeddings."""
    m = torch.softmax(visual @ text.T, dim=1).mean(dim=0)
    return [t for t in range(len(text)) if m[t] > m.mean()], m


def relation(rows: Tensor, chosen: list[int]) -> Tensor:
    """How much the raters look at each visual token, (n,). rows: (h, T, n), after softmax."""
    return rows.mean(dim=0)[chosen].mean(dim=0)


def kept(score: Tensor, listed: int) -> list[int]:
    """Kept visual tokens, ascending. score: (n,)."""
    count = min(listed, len(score) - 1)
    ranked = sorted(range(len(score)), key=lambda i: (-float(score[i]), i))
    return sorted(ranked[:count])


def merged(x: Tensor, c: int, noise: Tensor) -> list[list[float]]:
    """The c merged tokens, in descending order of the centre score. x: (r, C)."""
    r, width = x.shape
    dist = [[float((x[i] - x[j]).norm()) / math.sqrt(width) for j in range(r)] for i in range(r)]
    density = []
    for i in range(r):
        nearest = sorted(dist[i])[:c]
        density.append(math.exp(-sum(d * d for d in nearest) / c) + float(noise[i]) * 1e-6)
    farthest = max(max(row) for row in dist)
    score = []
    for i in range(r):
        denser = [dist[i][j] for j in range(r) if density[j] > density[i]]
        score.append(density[i] * (min(denser) if denser else farthest))
    centers = sorted(range(r), key=lambda i: -score[i])[:c]
    members: list[list[int]] = [[] for _ in centers]
    for i in range(r):
        own = centers.index(i) if i in centers else min(range(c), key=lambda s: dist[i][centers[s]])
        members[own].append(i)
    return [(sum(x[i] for i in group) / (len(group) + 1e-6)).tolist() for group in members]
