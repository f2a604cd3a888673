"""A native decoder whose layers hide keys from each other, as AIM's authors do instead of removing tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen2Model


@torch.no_grad()
def last_hidden(model: Qwen2Model, embeds: Tensor, visible_after: np.ndarray) -> Tensor:
    """Hidden states (1, T, d) after the final norm; layer l + 1 sees the keys that visible_after[l] (T,) marks."""
    length = embeds.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    handles = []
    for layer, visible in zip(model.layers, [np.ones(length, dtype=bool), *visible_after[:-1]], strict=True):
        seen = causal & torch.from_numpy(visible)
        mask = torch.zeros(length, length).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
        handles.append(layer.register_forward_pre_hook(_under(mask), with_kwargs=True))
    try:
        return model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()


def _under(mask: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "attention_mask": mask}

    return hook
