"""CDPruner's files: projected tokens and CLIP's embeddings of several crops in, kept tokens out."""

from __future__ import annotations

import torch

from harness.validate.golden.case import GoldenCase, NotAssertable, agree, view_of
from methods.base import INTERFACE, Budget, Shape, Site, View
from methods.cdpruner import PATCHES, SEGMENTS, CDPruner, diverse_subset


def kept(case: GoldenCase) -> None:
    """The kept tokens and the order of choice; beyond the rank of the features, only that ours stays finite."""
    view, count = view_from(case), case.integer("keep_count")
    selection = CDPruner("clip").at_interface(view)
    selection.validate(view.n, view.keep)
    mask = torch.zeros(view.n, dtype=torch.bool)
    mask[selection.keep] = True
    agree("we keep keep_count distinct tokens of every crop", bool((mask.view(view.images, -1).sum(1) == count).all()))
    theirs = case["keep_mask"]
    case.equals("kept_per_image", theirs.sum(1))
    relevance = CDPruner("clip")._relevance(view)
    orders = [
        diverse_subset(tokens, scores, count)
        for tokens, scores in zip(view.hidden.split(view.shape.images), relevance.split(view.shape.images), strict=True)
    ]
    if "_rank_deficient" in case.path.name:
        rank = view.hidden.shape[1]  # up to here the variance that is left is no rounding
        agree("the authors keep our first choices, up to the rank", bool(theirs[0, orders[0][:rank].numpy()].all()))
        raise NotAssertable(
            f"beyond {rank} channels the authors' variances are not-a-number (README: assert count and finiteness "
            "only); both hold"
        )
    case.equals("keep_mask", mask.view(view.images, -1))
    case.equals("selection_order_of_reimpl", torch.stack(orders))


def view_from(case: GoldenCase) -> View:
    features = case.tensor("projected_features")
    crops, n, _ = features.shape
    shape = Shape(((1, n),) * crops, 24, 32, unit_patches=1, vit_cls=True)
    signals = {
        PATCHES: case.tensor("clip_image_embeds").flatten(0, 1),
        SEGMENTS: case.tensor("clip_text_embeds"),
    }
    budget = Budget("layer_average", crops * case.integer("keep_count"))
    keep = CDPruner("clip").plan(budget, shape).keeps[Site(INTERFACE)]
    return view_of(Site(INTERFACE), features.flatten(0, 1), keep, shape, signals)
