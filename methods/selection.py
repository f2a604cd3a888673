"""What a pruner decides: which rows survive, which are merged, which are gathered into one extra token.

A `Selection` is data over the n rows of one view. `reduce` turns it into new rows; it is the only place where
rows are dropped, merged or aggregated, at every hook point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class PruningError(Exception):
    """Base of the errors of methods; the tree is drawn in methods/base.py."""


class InvalidSelection(PruningError):
    """A method returned a decision that contradicts itself or its plan."""


@dataclass(frozen=True)
class Selection:
    """A decision over the n rows of a view.

    keep       (k,) int64: the representative row of each output slot, in output order.
    assign     (n,) int64: the slot that each row joins, -1 = dropped. None: each kept row stands alone.
    weight     (n,) float: slot = sum of weight x row, not normalised. None: 1 on representatives, 0 elsewhere.
    aggregate  (n,) or (n, g) float: weights of one extra slot per image, appended after the image's kept rows;
               not normalised; an image whose weights are all 0 gets none. None: no aggregate anywhere.
    positions  None: the method's policy. "original" | "renumber" | (k,) ids (1-d) or (3, k) (M-RoPE).
    key_bias   add log(size) to the attention logits of the survivors' keys from here on: in the ViT in its later
               blocks, elsewhere in the later LLM layers.
    """

    keep: Tensor
    assign: Tensor | None = None
    weight: Tensor | None = None
    aggregate: Tensor | None = None
    positions: str | Tensor | None = None
    key_bias: bool = False

    def validate(self, n: int, asked: int | None = None, aggregates: int = 0) -> None:
        """Raise InvalidSelection unless this is a decision over n rows that leaves `asked` (None: any) alive.

        aggregates: how many images get an aggregate row. Uses shapes and host integers only: no device sync.
        """
        if self.keep.ndim != 1 or self.keep.dtype != torch.int64:
            raise InvalidSelection(f"keep must be (k,) int64, got {tuple(self.keep.shape)} {self.keep.dtype}")
        for label, tensor in (("assign", self.assign), ("weight", self.weight), ("aggregate", self.aggregate)):
            if tensor is not None and tensor.shape[0] != n:
                raise InvalidSelection(f"{label} must have one entry for each of the {n} rows, got {tensor.shape[0]}")
        alive = self.keep.shape[0] + aggregates
        if self.keep.shape[0] > n or (asked is not None and alive != asked):
            raise InvalidSelection(f"the plan asks for {asked} of {n} rows, the selection leaves {alive}")


def reduce(selection: Selection, rows: Tensor) -> Tensor:
    """The k output slots of a selection. rows: (n, ...), any float dtype -> (k, ...), the same dtype.

    Sums run in float32 (or wider). Rows that are only kept are copied, bit for bit.
    """
    if selection.assign is None:
        kept = rows[selection.keep]
        return kept if selection.weight is None else _scale(kept, selection.weight[selection.keep])
    weight = selection.weight
    if weight is None:
        weight = torch.zeros(rows.shape[0], device=rows.device).index_fill(0, selection.keep, 1.0)
    wide = torch.promote_types(rows.dtype, torch.float32)
    out = torch.zeros((selection.keep.shape[0] + 1, *rows.shape[1:]), dtype=wide, device=rows.device)
    slot = torch.where(selection.assign < 0, selection.keep.shape[0], selection.assign)  # the last slot is the bin
    out.index_add_(0, slot, _scale(rows.to(wide), weight))
    return out[:-1].to(rows.dtype)  # (k, ...)


def reduce_sizes(selection: Selection, size: Tensor) -> Tensor:
    """How many original tokens each output slot stands for. size: (n,) -> (k,)."""
    if selection.assign is None:
        return size[selection.keep]
    return reduce(Selection(selection.keep, selection.assign, torch.ones_like(size)), size)


def aggregate(weights: Tensor, rows: Tensor) -> Tensor:
    """The extra slot: sum of weight x row. rows: (n, d) with weights (n,), or (n, g, d) with (n,) or (n, g) -> (d,)."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    if rows.ndim == 3 and weights.ndim == 1:
        weights = weights[:, None].expand(rows.shape[:2])
    return torch.einsum("i,id->d", weights.reshape(-1).to(wide), rows.reshape(-1, rows.shape[-1]).to(wide)).to(
        rows.dtype
    )


def _scale(rows: Tensor, weight: Tensor) -> Tensor:
    wide = torch.promote_types(rows.dtype, weight.dtype)
    return (rows.to(wide) * weight.view(-1, *[1] * (rows.ndim - 1)).to(wide)).to(rows.dtype)
