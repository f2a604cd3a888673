"""SAINT's files: keys in, kept tokens out, by the threshold and by the same count asked for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.validate.golden.case import GoldenCase, agree, same, view_of
from methods.base import Shape
from methods.saint import Saint, rounds

DEPTHS = 24, 32  # of the ViT and of the LLM


def in_vit(case: GoldenCase) -> None:
    """The kept tokens of a batch, which loses one count everywhere, in the authors' order. CLS is no row of a view."""
    special, removed = case.integer("n_special"), case.integer("removed")
    pruner, keys = bipartite(case, "early"), case.tensor("metric")[:, special:]
    crops, n, _ = keys.shape
    theirs = case["kept_index_in_output_order"]
    same("special tokens", torch.arange(special).expand(crops, -1), theirs[:, :special])
    for keep in (None, crops * (n - removed)):
        same("kept_index_in_output_order", kept_in_vit(pruner, keys, keep) + special, theirs[:, special:])
    case.close("output", case.tensor("x")[torch.arange(crops)[:, None], torch.from_numpy(theirs)], 0)


def in_llm(case: GoldenCase) -> None:
    """The kept tokens behind one layer; of a cascade, behind layers 7 to 16, each on the survivors of those before."""
    if "keys_layer7" in case:
        return _cascade(case)
    keys = case.tensor("image_keys_head_mean")[0]
    for keep in (None, len(keys) - case.integer("removed")):
        kept = kept_in_llm(bipartite(case, "late"), keys, keep, site=0)
        same("kept_indices_sorted", kept, case["kept_indices_sorted"][0])
    same("kept_indices_unsorted, sorted", kept, np.sort(case["kept_indices_unsorted"][0]))


def full_graph(case: GoldenCase) -> None:
    """The kept patches and how many go in each round; their keep_num counts CLS."""
    keys = case.tensor("keys_head_mean")[:, 1:]
    n, pruner = keys.shape[1], Saint(step=case.integer("r"))
    k = min(case.integer("keep_num") - 1, n)
    kept = kept_in_vit(pruner, keys, k)[0]
    case.equals("kept_patch_indices", kept)
    case.equals("drops_per_iteration", list(rounds(n, k, pruner.step)))
    case.close("output", case.tensor("x")[:, torch.cat([torch.zeros(1, dtype=torch.int64), kept + 1])], 0)


def _cascade(case: GoldenCase) -> None:
    pruner, alive, entering = bipartite(case, "late"), torch.arange(case["keys_layer7"].shape[-2]), []
    for site, layer in enumerate(range(7, 17)):
        keys = case.tensor(f"keys_layer{layer}").flatten(0, -2)
        agree(f"keys_layer{layer} are those of the survivors", len(keys) == len(alive))
        entering.append(len(alive))
        kept = kept_in_llm(pruner, keys, None, site)
        same(f"kept_local_layer{layer}", kept, case[f"kept_local_layer{layer}"].reshape(-1))
        alive = alive[kept]
    same("final_original_indices", alive, case["final_original_indices"].reshape(-1))
    case.equals("tokens_per_layer", [*entering, len(alive)])


def bipartite(case: GoldenCase, stage: str) -> Saint:
    """The method with the file's threshold; neighbours and gamma where it has them."""
    given = {ours: case[theirs].item() for ours, theirs in (("neighbours", "K"), ("gamma", "gamma")) if theirs in case}
    return Saint(stage, "bipartite", tau=case.number("sim_threshold"), **given)


def kept_in_vit(pruner: Saint, keys: Tensor, keep: int | None) -> Tensor:
    """(B, k) places that the first in-vit site leaves. keys: (B, n, w), mean over heads; each sample is an image."""
    crops, n, width = keys.shape
    shape = Shape(((1, n),) * crops, *DEPTHS, unit_patches=1)
    signals = {pruner.needs(shape)[0]: keys.reshape(-1, 1, 1, width)}
    view = view_of(pruner.vit_sites(shape)[0], torch.zeros(crops * n, 1, 8), keep, shape, signals)
    selection = pruner.in_vit(view)
    selection.validate(view.n, keep)
    return selection.keep.view(crops, -1) - n * torch.arange(crops)[:, None]


def kept_in_llm(pruner: Saint, keys: Tensor, keep: int | None, site: int) -> Tensor:
    """(k,) places that one of the ten sites leaves. keys: (n, w), mean over heads."""
    shape = Shape(((1, len(keys)),), *DEPTHS, unit_patches=1)
    where = pruner.llm_sites(shape)[site]
    signals = {pruner.needs(shape)[site]: torch.stack([2 * keys, 0 * keys], dim=1)}  # two heads with this very mean
    selection = pruner.in_llm(view_of(where, torch.zeros(len(keys), 8), keep, shape, signals))
    selection.validate(len(keys), keep)
    return selection.keep
