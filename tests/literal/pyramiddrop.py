"""PyramidDrop's stage as described: the row of the last token in the upcoming layer, mean over heads."""

from __future__ import annotations

from torch import Tensor


def kept_local(rows: Tensor, start: int, n: int, original: int, ratio: float) -> list[int]:
    """Kept visual tokens, ascending, local to the current span [start, start + n). rows: (h, S) of the last token."""
    p = rows.mean(dim=0)[start : start + n].tolist()
    ranked = sorted(range(n), key=lambda i: (-p[i], i))
    return sorted(ranked[: int(original * ratio)])
