"""VisPruner's hook on the authors' inputs: the tokens that their code keeps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from views import view_of

from methods.base import INTERFACE, Budget, Selection, Shape, Signal, Site
from methods.vispruner import FEATURES, VisPruner

GOLDEN = sorted((Path(__file__).parent / "golden").glob("vispruner_*.npz"))
RAISES = {"vispruner_edge_odd_residual", "vispruner_edge_tiny_diverse"}  # the authors' code does, there is no output


def keep_mask(golden, budget: Budget | None = None, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """(B, N) what our hook keeps of B crops; every crop is an image, one patch is one token, and there is a CLS."""
    features = torch.from_numpy(golden["features"]).to(dtype)
    attention = torch.from_numpy(golden["cls_attention"]).mean(1)  # (B, N): the harness averages heads
    crops, n, _ = features.shape
    shape = Shape(((1, n),) * crops, 24, 32, unit_patches=1, vit_cls=True)
    pruner = VisPruner(float(golden["important_ratio"]), int(golden["visual_token_num"]))
    signals = {
        Signal("rows", "vit", 23, "cls"): attention.reshape(-1, 1),
        FEATURES: features.reshape(-1, 1, features.shape[-1]),
    }
    site = Site(INTERFACE)
    keep = pruner.plan(budget or Budget("native", 0), shape).keeps[site]
    selection: Selection = pruner.at_interface(view_of(site, torch.zeros(crops * n, 8), keep, shape, signals))
    mask = np.zeros(crops * n, dtype=bool)
    mask[selection.keep.numpy()] = True
    assert len(selection.keep) == keep == mask.sum()
    assert (np.diff(selection.keep.numpy()) > 0).all()
    return mask.reshape(crops, n)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kept_tokens_equal_the_authors(path):
    golden = np.load(path)
    mask = keep_mask(golden)
    assert (mask.sum(1) == golden["visual_token_num"]).all()
    if "important_indices" in golden:
        for crop, important in zip(mask, golden["important_indices"], strict=True):
            assert crop[important.astype(int)].all()
    if path.stem in RAISES:
        assert "keep_mask" not in golden and "official_error" in golden
    elif "fragile" not in path.stem:
        assert (mask == golden["keep_mask"]).all()
        kept = np.stack([np.flatnonzero(crop) for crop in mask])
        assert (kept == golden["kept_indices_sorted"]).all()


@pytest.mark.parametrize("path", [p for p in GOLDEN if "exact" in p.stem], ids=lambda path: path.stem)
def test_exact_files_are_kept_in_float64_too_and_by_an_exact_budget(path):
    golden = np.load(path)
    budget = Budget("layer_average", int(golden["visual_token_num"]))
    assert (keep_mask(golden, budget, torch.float64) == golden["keep_mask"]).all()


@pytest.mark.parametrize("path", [p for p in GOLDEN if "fragile" in p.stem], ids=lambda path: path.stem)
def test_the_attended_half_of_a_fragile_file_is_theirs_and_the_diverse_half_at_least_overlaps(path):
    golden = np.load(path)
    mask, theirs = keep_mask(golden), golden["keep_mask"]
    both = (mask & theirs).sum() / theirs.sum()
    assert both > 0.5  # the attended half alone is half; any two diverse halves share something


def test_every_golden_file_is_there():
    assert len(GOLDEN) >= 15 and {path.stem for path in GOLDEN} >= RAISES
