"""PyramidDrop's files: whole tiny Llamas, stage by stage, prefill and decoding."""

from __future__ import annotations

import torch

from harness.validate.golden.case import GoldenCase, close, same
from harness.validate.golden.llm import GoldenPrefill, model_beside
from methods.pyramiddrop import PyramidDrop

TOLERANCE = 1e-4


def whole_model(case: GoldenCase) -> None:
    """Scores and survivors of each stage, lengths, positions, caches and hidden states of each layer."""
    ours = prefilled(case)
    layers = case["layer_list"]
    case.equals("layer_list", list(ours.selections))
    for stage, (layer, selection) in enumerate(ours.selections.items(), 1):
        (score,) = ours.views[layer].signals.values()
        case.close(f"stage{stage}_score_image", score, 1e-6)
        case.equals(f"stage{stage}_kept_local_sorted", selection.keep)
    case.equals("seq_len_seen_by_layer", [states.shape[1] for states in ours.entered])
    case.equals("kv_len_per_layer_after_prefill", ours.cached)
    for layer in layers.tolist():
        name = f"position_ids_entering_layer{layer}"
        same(f"rotary table of {name}", ours.tables[layer], ours.cos_of(case[name]).numpy())
    case.close("last_hidden_prefill", ours.hidden, TOLERANCE)
    (step,) = ours.decode(case.tensor("decode_embed"))
    case.close("last_hidden_decode", step, TOLERANCE)
    positions = case["decode_position_per_layer"]
    close(
        "rotary tables of decode_position_per_layer",
        torch.cat(ours.decode_tables)[:, 0],
        ours.cos_of(positions)[0].numpy(),
        1e-5,
    )


def prefilled(case: GoldenCase) -> GoldenPrefill:
    model = model_beside(case)
    pruner = PyramidDrop(
        layers=tuple(case["layer_list"].tolist()), depth=len(model.layers), ratios=tuple(case["ratio_list"].tolist())
    )
    start = case.integer("image_start")
    return GoldenPrefill(model, pruner, case.tensor("inputs_embeds"), ((start, start + case.integer("image_length")),))
