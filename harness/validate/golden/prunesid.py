"""PruneSID's files: features, CLS attention and the loadings of the authors' random PCA in, kept tokens out."""

from __future__ import annotations

import torch

from harness.validate.golden.case import GoldenCase, agree
from methods.prunesid import groups, loadings, thinned


def kept(case: GoldenCase) -> None:
    """Groups and kept tokens from the authors' loadings, and the groups that our own PCA converges to.

    The draw of the authors' PCA cannot be repeated, so that their loadings are an input, as the README says.
    """
    hidden, attention = case.tensor("hidden_states"), case.tensor("cls_attention_rows")
    count = case.integer("need_token_num")
    agree("groups is what we would ask for", groups(count, hidden.shape[1] - 1, hidden.shape[2], False)
          == case.integer("groups"))  # fmt: skip
    chosen, own = [], []
    for tile, rows, loading in zip(hidden, attention, case.tensor("loadings_abs"), strict=True):
        score = rows[:, 0, 1:].mean(0)  # theirs is the sum over heads: the same order
        mine = thinned(tile[1:], score, loading, count, cls=1)
        chosen.append(torch.cat([torch.zeros(1, dtype=torch.int64), 1 + mine]))
        own.append(loadings(tile[1:], case.integer("groups"), torch.Generator().manual_seed(0), power=1000).argmax(1))
    case.equals("group_of_token", case.tensor("loadings_abs").argmax(2))
    case.equals("selected_indices_with_cls", torch.stack(chosen))
    case.equals("count", len(chosen[0]))
    case.equals("exact_svd_group_of_token", torch.stack(own))
