"""CDPruner's hook on the authors' inputs: the tokens that their code keeps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from views import view_of

from methods.base import INTERFACE, Budget, Shape, Site
from methods.cdpruner import PATCHES, SEGMENTS, CDPruner, diverse_subset

GOLDEN = sorted((Path(__file__).parent / "golden").glob("cdpruner_*.npz"))


def view_from(golden):
    features = torch.from_numpy(golden["projected_features"])
    crops, n, _ = features.shape
    shape = Shape(((1, n),) * crops, 24, 32, unit_patches=1, vit_cls=True)
    signals = {
        PATCHES: torch.from_numpy(golden["clip_image_embeds"]).flatten(0, 1),
        SEGMENTS: torch.from_numpy(golden["clip_text_embeds"]),
    }
    budget = Budget("layer_average", crops * int(golden["keep_count"]))
    keep = CDPruner("clip").plan(budget, shape).keeps[Site(INTERFACE)]
    return view_of(Site(INTERFACE), features.flatten(0, 1), keep, shape, signals)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kept_tokens_equal_the_authors(path):
    golden = np.load(path)
    view = view_from(golden)
    keep = CDPruner("clip").at_interface(view).keep.tolist()
    assert keep == sorted(set(keep)) and len(keep) == view.keep
    if "rank_deficient" in path.stem:  # theirs keeps 16 of 20 here, after NaN
        return
    mask = torch.zeros(view.n, dtype=torch.bool)
    mask[keep] = True
    assert np.array_equal(mask.view(golden["keep_mask"].shape).numpy(), golden["keep_mask"])
    relevance = CDPruner("clip")._relevance(view).split(view.shape.images)
    parts = zip(view.hidden.split(view.shape.images), relevance, golden["selection_order_of_reimpl"], strict=True)
    for tokens, scores, order in parts:
        assert diverse_subset(tokens, scores, int(golden["keep_count"])).tolist() == order.tolist()


def test_beyond_the_rank_the_choice_stays_finite_and_starts_like_theirs():
    golden = np.load(next(path for path in GOLDEN if "rank_deficient" in path.stem))
    view = view_from(golden)
    relevance = CDPruner("clip")._relevance(view)
    order = diverse_subset(view.hidden, relevance, 20)
    assert len(set(order.tolist())) == 20
    assert golden["keep_mask"][0, order[:8].numpy()].all()  # 8 channels: up to here the variance is no rounding


def test_every_golden_file_is_there():
    assert len(GOLDEN) >= 6
