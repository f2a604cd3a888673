"""SparseVLM's files: raters and scores, clusters, and whole tiny Llamas in both versions."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.validate.golden.case import GoldenCase, agree, same, view_of
from harness.validate.golden.llm import GoldenPrefill, model_beside
from methods.base import IN_LLM, Shape, Site, View
from methods.sparsevlm import AFFINITY, SparseVLM, cluster, raters

TOLERANCE = 1e-4
VERSIONS = {"1_0": "1.5", "2_0": "2.0"}  # the files' words -> ours


def scores(case: GoldenCase) -> None:
    """Raters, scores and kept tokens of one stage."""
    pre, n, m = case.integer("pre"), case.integer("n_visual"), case.integer("n_text")
    pruner, shape = SparseVLM(retain=case.integer("retain")), Shape(((1, n),), 24, 32, unit_patches=1)
    site = Site(IN_LLM, case.integer("layer") + 1)
    agree("a stage ends behind `layer`", site in pruner.sites(shape))
    embeddings = case.tensor("embeddings")[0]
    affinity = embeddings[pre : pre + n] @ embeddings[-m:].T
    rows = next(need for need in pruner.needs(shape) if need.at == site.layer)
    signals = {AFFINITY: affinity, rows: case.tensor("attn_rows_text_to_image")[0].mean(0)}
    kept = int(case["out_keep_mask"].sum())
    view = view_of(site, torch.zeros(n, 8), pruner._alive(n, kept), shape, signals)
    case.equals("out_rater_local_index", torch.nonzero(raters(affinity)).flatten())
    case.close("out_rater_score", affinity.softmax(1).mean(0)[None], 1e-6)
    case.close("out_relation", pruner.relation(view)[None], 1e-6)
    selection = pruner.in_llm(view)
    selection.validate(n, view.keep)
    case.equals("out_keep_mask", _mask(selection.keep[:kept], n)[None])
    agree("merge_flag: dropped tokens are recycled", bool(case["merge_flag"]) == (len(selection.keep) > kept))


def merge(case: GoldenCase) -> None:
    """The means of the clusters, in the order of their centres."""
    tokens, count = case.tensor("x")[0], case.integer("cluster_num")
    _, slot = cluster(tokens, count, case.tensor("density_noise_uniform01")[0])
    sums = torch.zeros(count, tokens.shape[1]).index_add_(0, slot, tokens)
    members = torch.bincount(slot, minlength=count)[:, None]
    case.close("out_merged", (sums / (members + 1e-6))[None], 1e-5)


def whole_model(case: GoldenCase) -> None:
    """Raters, scores and survivors of each stage, lengths, positions and caches of each layer, hidden states."""
    ours = prefilled(case)
    for stage, (layer, selection) in enumerate(ours.selections.items(), 1):
        view = ours.views[layer]
        case.equals("rater_local_index", torch.nonzero(raters(view.signal(AFFINITY))).flatten())
        relation = case.tensor(f"stage{stage}_relation")
        apart = ours.pruner.relation(view)[None] / relation - 1
        agree(f"stage{stage}_relation is ours within a thousandth", bool(apart.abs().max() < 1e-3))
        kept = ours.pruner._kept(view) if ours.pruner.version == "1.5" else len(selection.keep)  # the rest is recycled
        case.equals(f"stage{stage}_keep_mask", _mask(selection.keep[:kept], view.n)[None])
        name = f"position_ids_entering_layer{layer}"
        same(f"rotary table of {name}", ours.tables[layer], ours.cos_of(case[name]).numpy())
    case.equals("seq_len_seen_by_layer", [states.shape[1] for states in ours.entered])
    case.equals("kv_len_per_layer_after_prefill", ours.cached)
    case.close("last_hidden_prefill", ours.hidden, TOLERANCE)
    (step,) = ours.decode(case.tensor("decode_embed"))
    case.close("last_hidden_decode", step, TOLERANCE)


def prefilled(case: GoldenCase) -> GoldenPrefill:
    class Replayed(SparseVLM):
        """SparseVLM with the authors' draws of the noise."""

        def noise(self, view: View, count: int) -> Tensor:
            stage = self.sites(view.shape).index(view.site) + 1
            drawn = case.tensor(f"stage{stage}_merge_noise")[0]
            agree(f"stage{stage}_merge_noise has one draw for each recycled token", drawn.shape == (count,))
            return drawn

    version = VERSIONS.get(case.text("version"))
    agree(f"version is one of {', '.join(VERSIONS)}", version is not None)
    model, start = model_beside(case), case.integer("pre")
    pruner = Replayed(version=version, retain=case.integer("retain"), depth=len(model.layers))
    spans = ((start, start + case.integer("n_visual")),)
    agree(
        "behind the image stand n_text tokens", case["inputs_embeds"].shape[1] - spans[0][1] == case.integer("n_text")
    )
    return GoldenPrefill(model, pruner, case.tensor("inputs_embeds"), spans)


def _mask(indices: Tensor, n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.bool).index_fill(0, indices, True)
