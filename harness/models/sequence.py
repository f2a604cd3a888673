"""The prompt between two decoder layers, what the pruner's selection does to it, and the mask that then holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.models.deciding import Pass, grouped
from harness.models.prompt import VisualRows
from methods.base import PruningError, Selection, Signal, Site
from methods.selection import reduce, reduce_sizes

if TYPE_CHECKING:
    from harness.models.families.family import Inputs


@dataclass(frozen=True)
class Sequence:
    """The prompt inside the LLM between two layers. index: (n,) places of the visual tokens among the T tokens."""

    index: Tensor
    text_index: Tensor  # (m,) places of the others
    rows: VisualRows
    cos: Tensor  # (1, T, head_dim)
    sin: Tensor
    log_size: Tensor | None = None  # (T,) bias on the keys, None without one
    renumbered: bool = False

    @property
    def length(self) -> int:
        return self.index.shape[0] + self.text_index.shape[0]


def in_llm(
    run: Pass, inputs: Inputs, site: Site, hidden: Tensor, sequence: Sequence, signals: Mapping[Signal, Tensor]
) -> Selection | None:
    """The pruner's selection over the visual tokens in front of a decoder layer, None where it keeps all.

    hidden (n, d): of the visual tokens; signals: those of the LLM's layers, from whoever hooks them.
    """
    rows = sequence.rows
    asked = [need for need in run.needs if need.kind == "question"]
    if asked:
        signals = {**signals, **dict.fromkeys(asked, run.question(inputs))}
    view = run.view(site, inputs, hidden, (rows.image, rows.unit, rows.kind, rows.size), signals)
    selection = run.ask(view)
    if selection is None:
        return None
    run.checked(view, selection)  # nothing is gathered here: `cut` refuses it, since an aggregate has no place in time
    selection = grouped(selection, rows.image, view.images)
    run.note(view, selection, rows.image[selection.keep], rows.unit[selection.keep])
    return selection


def cut(
    sequence: Sequence,
    hidden: Tensor,
    selection: Selection,
    rotary: Callable[[int], tuple[Tensor, Tensor]],
    policy: str,
) -> tuple[Sequence, Tensor]:
    """The sequence and hidden states (B, T', d) after a selection over its visual rows.

    rotary(length) gives the tables of positions 0..length-1. policy: the positions to use where the selection has
    none. Output rows fill the survivors' places in their own order, so that images stay apart.
    """
    positions = policy if selection.positions is None else selection.positions
    if selection.aggregate is not None or not isinstance(positions, str):
        raise PruningError("inside the LLM a selection cannot aggregate or give ids; merge with `assign` instead")
    source = sequence.index[selection.keep]  # (k,) in output order
    order = torch.sort(torch.cat([sequence.text_index, source])).values  # (T',)
    index = torch.searchsorted(order, torch.sort(source).values)
    text_index = torch.searchsorted(order, sequence.text_index)
    shorter = hidden[:, order]
    visual = hidden[:, sequence.index]
    shorter[:, index] = torch.stack([reduce(selection, one) for one in visual])
    rows = VisualRows(
        sequence.rows.image[selection.keep],
        sequence.rows.unit[selection.keep],
        sequence.rows.kind[selection.keep],
        reduce_sizes(selection, sequence.rows.size),
        _counts(sequence.rows, selection),
    )
    renumbered = sequence.renumbered or positions == "renumber"
    if renumbered:
        cos, sin = rotary(order.shape[0])
    else:
        cos, sin = sequence.cos[:, order], sequence.sin[:, order]
        cos[:, index], sin[:, index] = sequence.cos[:, source], sequence.sin[:, source]
    log_size = None
    if selection.key_bias or sequence.log_size is not None:
        log_size = torch.zeros(order.shape[0], device=hidden.device)
        log_size[index] = rows.size.log()
    return Sequence(index, text_index, rows, cos, sin, log_size, renumbered), shorter


def _counts(rows: VisualRows, selection: Selection) -> tuple[int, ...]:
    if len(rows.counts) == 1:
        return (selection.keep.shape[0],)
    image = rows.image[selection.keep]
    return tuple(torch.bincount(image, minlength=len(rows.counts)).tolist())  # several images: one wait


def mask_for(queries: int, keys: int, bias: Tensor | None, kernel: str, like: Tensor) -> Tensor | None:
    """The attention mask of a layer: None where the kernel's own causal rule is right.

    bias: (t,) additive on the first t keys, or None. Raises PruningError for a bias under flash attention.
    """
    if bias is not None and "flash" in kernel:
        raise PruningError(f"a key bias needs --attention sdpa or eager, not {kernel}")
    if bias is None and (queries == 1 or (kernel != "eager" and queries == keys)):
        return None
    place = torch.arange(keys, device=like.device)
    visible = place[None, :] <= place[keys - queries :, None]  # (queries, keys)
    mask = torch.zeros(queries, keys, dtype=like.dtype, device=like.device)
    mask = mask.masked_fill(~visible, torch.finfo(like.dtype).min)
    if bias is not None:
        mask[:, : bias.shape[0]] += bias.to(like.dtype)
    return mask[None, None]
