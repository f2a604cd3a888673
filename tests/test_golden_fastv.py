"""FastV end to end: the authors' outputs, reproduced by the native LlamaModel under our hooks."""

import numpy as np
import pytest
import torch
from golden_llm import Prefilled, case_of, close, files, native_model

from methods.fastv import FastV

CASES = files("fastv_case*.npz")


def prefilled(case, embeds: torch.Tensor) -> Prefilled:
    model = native_model(str(case["weights_file"]), int(case["num_heads"]), int(case["num_kv_heads"]))
    pruner = FastV(k=int(case["fastv_k"]), depth=6, r=float(case["fastv_r"]))
    start, n = int(case["image_start"]), int(case["image_length"])
    return Prefilled(model, pruner, embeds, ((start, start + n),))


@pytest.mark.parametrize("name", CASES)
def test_prefill_cache_and_decoding_equal_the_authors(name):
    case = case_of(name)
    ours = prefilled(case, torch.from_numpy(case["inputs_embeds"]))
    assert ours.kept == case["keep_index"].tolist()
    assert ours.cached == case["kv_len_per_layer_after_prefill"].tolist()
    close(ours.hidden, case["last_hidden_prefill"])
    for number, step in enumerate(ours.decode(torch.from_numpy(case["decode_embeds"])), 1):
        close(step, case[f"last_hidden_decode_step{number}"])


@pytest.mark.parametrize("name", CASES)
def test_a_longer_prompt_is_pruned_anew(name):
    case = case_of(name)
    longer = torch.from_numpy(np.concatenate([case["inputs_embeds"], case["decode_embeds"][:, :1]], axis=1))
    ours = prefilled(case, longer)
    assert ours.kept == case["keep_index_nocache_step1"].tolist()
    close(ours.hidden, case["last_hidden_nocache_step1"])


def test_the_golden_files_are_there():
    assert len(CASES) >= 5
