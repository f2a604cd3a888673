"""FastV's files: whole tiny Llamas, prefill, cache, decoding, and a longer prompt without a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.validate.golden.case import GoldenCase
from harness.validate.golden.llm import GoldenPrefill, model_beside
from methods.fastv import FastV

TOLERANCE = 1e-4  # of hidden states, as golden/README.md suggests


def whole_model(case: GoldenCase) -> None:
    """Scores, survivors, cache lengths and hidden states, of the prefill, two decoding steps and a second prefill."""
    embeds, following = case.tensor("inputs_embeds"), case.tensor("decode_embeds")
    ours = prefilled(case, embeds)
    (view,) = ours.views.values()
    (score,) = view.signals.values()
    case.close("score_image", score, 1e-6)
    case.equals("keep_index", ours.kept)
    case.equals("kv_len_per_layer_after_prefill", ours.cached)
    case.close("last_hidden_prefill", ours.hidden, TOLERANCE)
    for number, step in enumerate(ours.decode(following), 1):
        case.close(f"last_hidden_decode_step{number}", step, TOLERANCE)
    longer = prefilled(case, torch.cat([embeds, following[:, :1]], dim=1))
    case.equals("keep_index_nocache_step1", longer.kept)
    case.close("last_hidden_nocache_step1", longer.hidden, TOLERANCE)


def prefilled(case: GoldenCase, embeds: Tensor) -> GoldenPrefill:
    model = model_beside(case)
    pruner = FastV(k=case.integer("fastv_k"), depth=len(model.layers), r=case.number("fastv_r"))
    start, n = case.integer("image_start"), case.integer("image_length")
    return GoldenPrefill(model, pruner, embeds, ((start, start + n),))
