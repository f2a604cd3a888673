"""PyramidDrop end to end: the authors' outputs, reproduced by the native LlamaModel under our hooks."""

from __future__ import annotations

import pytest
import torch
from golden_llm import Prefilled, case_of, close, files, native_model

from methods.pyramiddrop import PyramidDrop

CASES = files("pdrop_case*.npz")


@pytest.fixture(params=CASES)
def run(request):
    case = case_of(request.param)
    heads, start = int(case["num_heads"]), int(case["image_start"])
    layers, ratios = tuple(case["layer_list"].tolist()), tuple(case["ratio_list"].tolist())
    pruner = PyramidDrop(layers=layers, depth=8, ratios=ratios)
    model = native_model(str(case["weights_file"]), heads, heads)
    spans = ((start, start + int(case["image_length"])),)
    return case, Prefilled(model, pruner, torch.from_numpy(case["inputs_embeds"]), spans)


def test_scores_and_survivors_of_each_stage_equal_the_authors(run):
    case, ours = run
    assert list(ours.selections) == case["layer_list"].tolist()
    for stage, (layer, selection) in enumerate(ours.selections.items(), 1):
        (score,) = ours.views[layer].signals.values()
        close(score, case[f"stage{stage}_score_image"], 1e-6)
        assert selection.keep.tolist() == case[f"stage{stage}_kept_local_sorted"].tolist()


def test_lengths_and_positions_of_each_layer_equal_the_authors(run):
    case, ours = run
    assert [states.shape[1] for states in ours.entered] == case["seq_len_seen_by_layer"].tolist()
    assert ours.cached == case["kv_len_per_layer_after_prefill"].tolist()
    for layer in case["layer_list"].tolist():
        torch.testing.assert_close(
            ours.tables[layer], ours.cos_of(case[f"position_ids_entering_layer{layer}"]), atol=0, rtol=0
        )


def test_prefill_and_decoding_equal_the_authors(run):
    case, ours = run
    close(ours.hidden, case["last_hidden_prefill"])
    (step,) = ours.decode(torch.from_numpy(case["decode_embed"]))
    close(step, case["last_hidden_decode"])
    for table, position in zip(ours.decode_tables, case["decode_position_per_layer"].tolist(), strict=True):
        torch.testing.assert_close(table, ours.cos_of([position]))


def test_the_golden_files_are_there():
    assert len(CASES) >= 4
