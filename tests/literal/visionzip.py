"""VisionZip as described, for a tower with CLS and for Qwen2.5-VL."""

from __future__ import annotations

import torch
from torch import Tensor


def visionzip(cls_attention: Tensor, keys: Tensor, x: Tensor, dominant: int, contextual: int) -> tuple[Tensor, Tensor]:
    """The dominant + contextual tokens of one image, and places of the dominant ones, CLS first, then best first.

    cls_attention: (h, n), keys: (1 + n, dh) mean over heads, x: (1 + n, d). `dominant` counts CLS.
    """
    s = cls_attention.sum(dim=0)
    top = s.argsort(descending=True, stable=True)[: dominant - 1] + 1
    all_indices = torch.cat([torch.zeros(1, dtype=torch.int64), top])
    dom = all_indices.sort().values
    is_rest = torch.ones(len(x), dtype=torch.bool)
    is_rest[dom] = False
    _, merged = contextual_tokens(keys[is_rest], x[is_rest], contextual)
    return torch.cat([x[dom], merged]), all_indices


def contextual_tokens(keys: Tensor, x: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """Places of the targets among the rest and the contextual tokens, steps 4 to 6. keys: (Nf, dh), x: (Nf, d)."""
    rest = len(x)
    step = max(1, rest // c)
    targets = torch.arange(0, rest, step)[:c]
    is_other = torch.ones(rest, dtype=torch.bool)
    is_other[targets] = False
    unit = keys / keys.norm(dim=-1, keepdim=True)
    nearest = (unit[is_other] @ unit[targets].T).argmax(dim=1)
    others, merged = x[is_other], []
    for t, target in enumerate(targets.tolist()):
        mine = others[nearest == t]
        merged.append(x[target] + mine.sum(dim=0) / max(1, len(mine)))
    return targets, torch.stack(merged)


def qwen_importance(q: Tensor, k: Tensor, window_index: Tensor) -> tuple[Tensor, Tensor]:
    """Importance (n,) and keys (n, dh) of merged tokens, raster order. q, k: (h, 4 n, dh), rotated, window order."""
    p = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
    patch = p.mean(dim=0).sum(dim=0)
    back = window_index.argsort()
    token = patch.view(-1, 4).mean(dim=1)[back]
    key = k.view(len(k), -1, 4, k.shape[-1]).mean(dim=2).mean(dim=0)[back]
    return token, key


def qwen(importance: Tensor, keys: Tensor, x: Tensor, dominant: int, contextual: int) -> tuple[Tensor, Tensor]:
    """(n,) which tokens stay, and the (n, d) tokens with contextual ones at their targets' places."""
    n = len(x)
    stays = torch.zeros(n, dtype=torch.bool)
    stays[importance.argsort(descending=True, stable=True)[:dominant]] = True
    rest = (~stays).nonzero().flatten()
    targets, merged = contextual_tokens(keys[rest], x[rest], contextual)
    out = x.clone()
    out[rest[targets]] = merged
    stays[rest[targets]] = True
    return stays, out
