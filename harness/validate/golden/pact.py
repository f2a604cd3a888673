"""PACT's files: clusters of given keys, and whole tiny Qwen2 models."""

from __future__ import annotations

import numpy as np
import torch

from harness.models.attention import Capture
from harness.models.signals import read_signal
from harness.validate.golden.case import GoldenCase, agree, close, same, view_of
from harness.validate.golden.llm import GoldenPrefill, Spans, model_beside
from methods.base import Selection, Shape, Signal, View
from methods.ops import unit
from methods.pact import PACT, density
from methods.selection import reduce, reduce_sizes

TOLERANCE = 5e-4  # of what follows the size bias: the authors' log(3) in float16 is off by 2e-4


def clusters(case: GoldenCase) -> None:
    """Densities, centres, members, sizes and means; of exact duplicates, the partition alone."""
    pruner, view, selection = clustered(case)
    if "out_partition" in case:
        slots = selection.assign.tolist()
        numbers = {slot: number for number, slot in enumerate(dict.fromkeys(slots))}  # clusters by their first member
        order = list(numbers)
        case.equals("out_partition", [numbers[slot] for slot in slots])
        case.close("out_merged_by_partition", reduce(selection, view.hidden)[order], 1e-5)
        case.equals("out_cluster_size", reduce_sizes(selection, view.size)[order])
        return
    labels = torch.where(selection.assign < 0, -1, selection.keep[selection.assign.clamp_min(0)])
    case.equals("out_center_index", selection.keep)
    case.equals("out_labels", labels)
    case.close("out_merged_centers", reduce(selection, view.hidden), 1e-5)
    case.equals("out_cluster_size", reduce_sizes(selection, view.size))
    m = len(case["keys"])
    distance = (1 - view.signal(pruner.needs(view.shape)[1])[:m, :m]).clamp_min(0).fill_diagonal_(0)
    case.close("out_density", density(distance), 1e-3)


def clustered(case: GoldenCase) -> tuple[PACT, View, Selection]:
    """The kept tokens and behind them the pruned ones, which get no importance."""
    keys = torch.cat([case.tensor("keys"), case.tensor("pruned_keys")])
    hidden = torch.cat([case.tensor("hidden"), case.tensor("pruned_hidden")])
    m, n = len(case["keys"]), len(keys)
    pruner = PACT(keep=min((m + 0.5) / n, 1), cutoff=case.number("cutoff"), alpha=case.number("alpha"))
    agree("as many tokens are clustered as the file keeps", pruner.survivors(n) == m)
    shape = Shape(((1, n),), 24, 28, unit_patches=1)
    rows, cosines = pruner.needs(shape)
    capture = Capture(keys[None, None], keys[None, None], 1.0)
    signals = {
        rows: (torch.arange(n) < m).float() / hidden.norm(dim=1),
        cosines: read_signal(cosines, capture, torch.arange(n), causal=True),
    }
    view = view_of(pruner.site(shape), hidden, None, shape, signals)
    selection = pruner.in_llm(view)
    selection.validate(n)
    return pruner, view, selection


class Observed(PACT):
    """PACT that is shown importance and cosines even where it uses only one of them."""

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        return PACT(self.layer, self.depth).needs(shape)


def whole_model(case: GoldenCase) -> None:
    """Importance, clusters and their keys, states and positions behind the reduction, caches, hidden states."""
    ours = prefilled(case)
    layer = case.integer("layer_for_reduction")
    view, selection = ours.views[layer], ours.selections[layer]
    case.close("hidden_before_reduction_layer", ours.received[layer], 1e-4)
    rows, _ = ours.pruner.needs(ours.shape)
    case.close("euti_score_image", view.signal(rows) * view.hidden.norm(dim=1), 1e-5)
    if case["use_dbdpc"]:
        _centres(case, ours, view, selection)
    case.equals("visual_before_after", [view.n, len(selection.keep)])
    case.equals("out_position_ids_after", ours.kept)
    case.close("out_hidden_after_reduction", ours.entered[layer], 1e-4)
    same("rotary table of out_position_ids_after", ours.tables[layer],
         ours.cos_of(case["out_position_ids_after"]).numpy())  # fmt: skip
    case.equals("kv_len_per_layer_after_prefill", ours.cached)
    case.close("last_hidden_prefill", ours.hidden, TOLERANCE)
    (step,) = ours.decode(case.tensor("decode_embed"))
    case.close("last_hidden_decode", step, TOLERANCE)
    logarithms = torch.zeros(len(ours.kept))
    alive = ours.surgery.visual_mask
    assert alive is not None  # the prefill has run
    logarithms[alive[0]] = ours.surgery.rows.size.log()
    case.close("out_log_weights_fp16", logarithms[None], 2e-3)


def prefilled(case: GoldenCase) -> GoldenPrefill:
    model = model_beside(case, case.number("rope_theta"))
    pruner = Observed(
        layer=case.integer("layer_for_reduction"),
        depth=len(model.layers),
        keep=case.number("keep_fraction"),
        cutoff=case.number("cutoff"),
        alpha=case.number("alpha"),
        prune=bool(case["use_euti"]),
        cluster=bool(case["use_dbdpc"]),
        retrieve=bool(case["recover_pruned"]),
        proportional=bool(case["proportional_attention"]),
    )
    return GoldenPrefill(model, pruner, case.tensor("inputs_embeds"), _spans(case))


def _spans(case: GoldenCase) -> Spans:
    """Where visual tokens stand: newlines part an image into several spans."""
    position, is_image = case["position_and_is_image"].T
    same("positions of position_and_is_image", np.arange(len(position)), position)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_image, [0]])))
    return tuple((int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True))


def _centres(case: GoldenCase, ours: GoldenPrefill, view: View, selection: Selection) -> None:
    places = np.flatnonzero(case["position_and_is_image"][:, 1])
    centre, kept = case["dbdpc_center_mask"], np.searchsorted(places, case["dbdpc_kept_pos"])
    same("dbdpc_kept_pos of the centres", places[selection.keep], case["dbdpc_kept_pos"][centre])
    sizes = torch.zeros(len(kept)).masked_scatter(case.tensor("dbdpc_center_mask"), reduce_sizes(selection, view.size))
    case.equals("dbdpc_cluster_size", sizes)
    _, cosines = ours.pruner.needs(ours.shape)
    theirs = unit(case.tensor("dbdpc_kept_keys"))
    close("cosines of dbdpc_kept_keys", view.signal(cosines)[kept][:, kept], (theirs @ theirs.T).numpy(), 1e-5)
