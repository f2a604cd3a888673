"""A batch of prompts as a processor gives it, taken apart into single ones.

Pictures of all rows lie one behind the other; which of them are a row's own follows from its placeholders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.models.families.family import Family, Inputs, Picture


def prompts_of(family: Family, processed: Mapping[str, Any]) -> list[Inputs]:
    """The prompts of a left-padded batch, their padding left out. Raises ValueError for what cannot be pruned."""
    if processed.get("pixel_values_videos") is not None:
        raise ValueError("pruning takes images, not videos")
    ids, mask = processed["input_ids"].cpu(), processed.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask.cpu()
    rows = [own[_padding(alive.bool(), row) :] for row, (own, alive) in enumerate(zip(ids, mask, strict=True))]
    placeholders = [int((row == family.model.config.image_token_id).sum()) for row in rows]
    shared = _shared(placeholders, family.pictures(processed))
    return [family.inputs({"input_ids": row[None], **_joined(own)}) for row, own in zip(rows, shared, strict=True)]


def _padding(alive: Tensor, row: int) -> int:
    """How many tokens of padding stand in front of a row."""
    padding = int((~alive).sum())
    if not bool(alive[padding:].all()):
        raise ValueError(f"prompt {row} of the batch is padded behind its text; set tokenizer.padding_side = 'left'")
    return padding


def _joined(pictures: list[Picture]) -> dict[str, Tensor]:
    return {name: torch.cat([picture.tensors[name] for picture in pictures]) for name in pictures[0].tensors}


def _shared(placeholders: list[int], pictures: list[Picture]) -> list[list[Picture]]:
    """The pictures of each row, in order."""
    left, shared = iter(pictures), []
    for row, wanted in enumerate(placeholders):
        if not wanted:
            raise ValueError(f"prompt {row} of the batch has no image; ask prompts of text alone apart from the others")
        own: list[Picture] = []
        while sum(picture.tokens for picture in own) < wanted:
            picture = next(left, None)
            if picture is None:
                raise ValueError(f"prompt {row} has {wanted} image placeholders, more than the images that are left")
            own.append(picture)
        found = sum(picture.tokens for picture in own)
        if found != wanted:
            raise ValueError(f"prompt {row} has {wanted} image placeholders, its images have {found} tokens")
        shared.append(own)
    if next(left, None) is not None:
        raise ValueError("the batch has more images than its prompts have placeholders for")
    return shared
