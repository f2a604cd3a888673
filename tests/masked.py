"""The gold reference: the native model on all tokens, with pruned ones masked out as keys, layer by layer.

Runs the native `forward` and `generate` untouched, under an attention function of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

NAME = "gold_masked"


def _attention(module, query, key, value, attention_mask=None, scaling=None, dropout=0.0, **kwargs):  # noqa: ANN
    groups = query.shape[1] // key.shape[1]
    logits = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scaling
    if attention_mask is not None:
        logits = logits + attention_mask
    dead: Tensor | list[Tensor] | None = getattr(module, "gold_dead_keys", None)
    if isinstance(dead, list):  # one mask an image; the native ViT attends image by image, in order
        dead.append(dead.pop(0))
        dead = dead[-1]
    if dead is not None:
        dead = torch.nn.functional.pad(dead, (0, key.shape[2] - dead.shape[-1]), value=False)
        dead = dead[:, None, None] if dead.ndim == 2 else dead  # (images, tokens) where images are one batch
        logits = logits.masked_fill(dead, torch.finfo(logits.dtype).min)
    weights = logits.softmax(-1)
    return (weights @ value.repeat_interleave(groups, 1)).transpose(1, 2).contiguous(), weights


@contextmanager
def masked(model: nn.Module, dead_keys: dict[nn.Module, Tensor | list[Tensor]]) -> Iterator[None]:
    """Within the block `model` attends natively except that each module ignores the keys marked True for it."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    for module, dead in dead_keys.items():
        module.gold_dead_keys = dead
    try:
        yield
    finally:
        for module in dead_keys:
            del module.gold_dead_keys
        model.set_attn_implementation(before)
