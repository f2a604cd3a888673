"""SparseVLM's golden files beyond `harness validate`: the clusters' means through the hook."""

from __future__ import annotations

from pathlib import Path

import torch
from views import shape_of, view_of

from harness.validate.golden.case import GoldenCase
from methods.base import IN_LLM, Site
from methods.selection import reduce
from methods.sparsevlm import AFFINITY, SparseVLM

MERGES = sorted((Path(__file__).parents[1] / "golden").glob("sparsevlm_merge_*.npz"))


def test_merged_tokens_stand_behind_the_kept_ones_as_means():
    tokens = GoldenCase(MERGES[0]).tensor("x")[0]
    n = tokens.shape[0]
    shape, pruner = shape_of((1, n), llm_layers=32), SparseVLM()
    rows = next(need for need in pruner.needs(shape) if need.at == 3)
    view = view_of(Site(IN_LLM, 3), tokens, 8, shape, {AFFINITY: torch.zeros(n, 1), rows: torch.rand(1, n)})
    selection = pruner.in_llm(view)
    out = reduce(selection, tokens)
    for slot in range(8):
        members = tokens[selection.assign == slot]
        torch.testing.assert_close(out[slot], members.sum(0) / (len(members) + (1e-6 if slot > 5 else 0)))
