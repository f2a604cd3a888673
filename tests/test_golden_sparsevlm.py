"""SparseVLM: the authors' raters, scores and clusters, and their runs on the native LlamaModel under our hooks."""

from __future__ import annotations

import pytest
import torch
from golden_llm import Prefilled, case_of, close, files, native_model
from views import shape_of, view_of

from methods.base import IN_LLM, Site
from methods.selection import reduce
from methods.sparsevlm import AFFINITY, SparseVLM, cluster, raters

SCORES, MERGES, RUNS = (files(f"sparsevlm_{part}_*.npz") for part in ("topk", "merge", "e2e"))


@pytest.mark.parametrize("name", SCORES)
def test_raters_scores_and_kept_tokens_equal_the_authors(name):
    case = case_of(name)
    pre, n, m = int(case["pre"]), int(case["n_visual"]), int(case["n_text"])
    pruner, shape = SparseVLM(retain=int(case["retain"])), shape_of((1, n), llm_layers=32)
    site = Site(IN_LLM, int(case["layer"]) + 1)
    embeddings = torch.from_numpy(case["embeddings"][0])
    affinity = embeddings[pre : pre + n] @ embeddings[-m:].T
    rows = next(need for need in pruner.needs(shape) if need.at == site.layer)
    signals = {AFFINITY: affinity, rows: torch.from_numpy(case["attn_rows_text_to_image"][0]).mean(0)}
    kept = int(case["out_keep_mask"].sum())
    asked = pruner._alive(n, kept)
    view = view_of(site, torch.randn(n, 8), asked, shape, signals)
    assert torch.nonzero(raters(affinity)).flatten().tolist() == case["out_rater_local_index"].tolist()
    close(affinity.softmax(1).mean(0)[None], case["out_rater_score"], 1e-6)
    close(pruner.relation(view)[None], case["out_relation"], 1e-6)
    selection = pruner.in_llm(view)
    selection.validate(n, asked)
    assert selection.keep[:kept].tolist() == case["out_keep_mask"][0].nonzero()[0].tolist()


@pytest.mark.parametrize("name", MERGES)
def test_clusters_equal_the_authors(name):
    case = case_of(name)
    tokens, count = torch.from_numpy(case["x"][0]), int(case["cluster_num"])
    _, slot = cluster(tokens, count, torch.from_numpy(case["density_noise_uniform01"][0]))
    sums = torch.zeros(count, tokens.shape[1]).index_add_(0, slot, tokens)
    close((sums / (torch.bincount(slot, minlength=count)[:, None] + 1e-6))[None], case["out_merged"], 1e-5)


@pytest.fixture(params=RUNS)
def run(request):
    case = case_of(request.param)

    class Replayed(SparseVLM):
        """SparseVLM with the authors' draws of the noise."""

        def noise(self, view, count):
            stage = self.sites(view.shape).index(view.site) + 1
            drawn = torch.from_numpy(case[f"stage{stage}_merge_noise"][0])
            assert drawn.shape == (count,)
            return drawn

    version = {"1_0": "1.5", "2_0": "2.0"}[str(case["version"])]
    heads, start = int(case["num_heads"]), int(case["pre"])
    pruner = Replayed(version=version, retain=int(case["retain"]), depth=18)
    model = native_model(str(case["weights_file"]), heads, heads)
    spans = ((start, start + int(case["n_visual"])),)
    return case, Prefilled(model, pruner, torch.from_numpy(case["inputs_embeds"]), spans)


def test_raters_scores_and_survivors_of_each_stage_equal_the_authors(run):
    case, ours = run
    assert list(ours.selections) == [3, 7, 16]
    for stage, (layer, selection) in enumerate(ours.selections.items(), 1):
        view = ours.views[layer]
        rating = torch.nonzero(raters(view.signal(AFFINITY))).flatten()
        assert rating.tolist() == case["rater_local_index"].tolist()
        relation = torch.from_numpy(case[f"stage{stage}_relation"])
        assert (ours.pruner.relation(view)[None] / relation - 1).abs().max() < 1e-3
        mask = case[f"stage{stage}_keep_mask"][0]
        assert selection.keep[: mask.sum()].tolist() == mask.nonzero()[0].tolist()


def test_lengths_and_positions_of_each_layer_equal_the_authors(run):
    case, ours = run
    assert [states.shape[1] for states in ours.entered] == case["seq_len_seen_by_layer"].tolist()
    assert ours.cached == case["kv_len_per_layer_after_prefill"].tolist()
    for layer in (3, 7, 16):
        expected = ours.cos_of(case[f"position_ids_entering_layer{layer}"])
        torch.testing.assert_close(ours.tables[layer], expected, atol=0, rtol=0)


def test_prefill_and_decoding_equal_the_authors(run):
    case, ours = run
    close(ours.hidden, case["last_hidden_prefill"])
    (step,) = ours.decode(torch.from_numpy(case["decode_embed"]))
    close(step, case["last_hidden_decode"])


def test_merged_tokens_stand_behind_the_kept_ones_as_means():
    case = case_of(MERGES[0])
    tokens = torch.from_numpy(case["x"][0])
    n = tokens.shape[0]
    shape, pruner = shape_of((1, n), llm_layers=32), SparseVLM()
    rows = next(need for need in pruner.needs(shape) if need.at == 3)
    view = view_of(Site(IN_LLM, 3), tokens, 8, shape, {AFFINITY: torch.zeros(n, 1), rows: torch.rand(1, n)})
    selection = pruner.in_llm(view)
    out = reduce(selection, tokens)
    for slot in range(8):
        members = tokens[selection.assign == slot]
        torch.testing.assert_close(out[slot], members.sum(0) / (len(members) + (1e-6 if slot > 5 else 0)))


def test_every_golden_file_is_there():
    assert (len(SCORES), len(MERGES), len(RUNS)) >= (3, 2, 2)
