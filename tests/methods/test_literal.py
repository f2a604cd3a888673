"""The literal transcriptions against the authors' recorded outputs: an oracle has to be right itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from literal import aim, cdpruner, divprune, pact, pyramiddrop, saint, sparsevlm, tome, visionzip, vispruner

GOLDEN = Path(__file__).parents[1] / "golden"
NEVER_ASSERTED = ("fragile", "rank_deficient", "duplicates", "edge_k0", "odd_residual", "tiny_diverse")


def files(pattern: str) -> list[Path]:
    found = sorted(path for path in GOLDEN.glob(pattern) if not any(word in path.stem for word in NEVER_ASSERTED))
    assert found, pattern
    return found


def cases(pattern: str):
    return pytest.mark.parametrize("path", files(pattern), ids=lambda path: path.stem)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as golden:
        return {
            key: torch.from_numpy(np.atleast_1d(golden[key]))
            for key in golden.files
            if golden[key].dtype.kind in "fiub"
        }


@cases("divprune_*.npz")
def test_divprune(path):
    case = tensors(path)
    assert divprune.divprune(case["tokens"], int(case["keep_count"])) == case["selection_order"].tolist()


@cases("vispruner_*.npz")
def test_vispruner(path):
    case = tensors(path)
    budget, ratio = int(case["visual_token_num"]), float(case["important_ratio"])
    for features, attention, keep in zip(case["features"], case["cls_attention"], case["keep_mask"], strict=True):
        kept = vispruner.vispruner(features, attention.mean(dim=0), budget, ratio)
        assert kept == keep.nonzero().flatten().tolist()


@cases("cdpruner_*.npz")
def test_cdpruner(path):
    case = tensors(path)
    relevance = cdpruner.clip_relevance(case["clip_image_embeds"], torch.atleast_2d(case["clip_text_embeds"]))
    for tokens, mine, order in zip(
        case["projected_features"], relevance, case["selection_order_of_reimpl"], strict=True
    ):
        assert cdpruner.cdpruner(tokens, mine, int(case["keep_count"])) == order.tolist()


@cases("pact_dbdpc_case0[1-8]*.npz")
def test_pact(path):
    case = tensors(path)
    label = pact.labels(case["keys"], case["pruned_keys"], float(case["cutoff"]), float(case["alpha"]))
    assert label == case["out_labels"].tolist()
    sizes, means = pact.merged(
        torch.cat([case["hidden"], case["pruned_hidden"].view(-1, case["hidden"].shape[1])]), label
    )
    assert sizes == case["out_cluster_size"].tolist()
    torch.testing.assert_close(means, case["out_merged_centers"], atol=1e-5, rtol=0)


@cases("aim_merge_*.npz")
def test_aim_merging(path):
    case = tensors(path)
    for crop, x in enumerate(case["tokens"]):
        metric = case["metric"][crop] if "metric" in case else x
        for stage, r in enumerate(case["stage_r"].tolist(), 1):
            x, metric = aim.merge(metric, r, x), aim.merge(metric, r, metric)
            if f"stage{stage}_tokens" in case:
                torch.testing.assert_close(x, case[f"stage{stage}_tokens"][crop], atol=1e-5, rtol=0)


@cases("aim_importance_*.npz")
def test_aim_importance(path):
    case = tensors(path)
    mine = aim.importance(case["attention_logits_masked"][0], float(case["tau"]), int(case["iters"]))
    torch.testing.assert_close(mine, case["importance"][0], atol=1e-6, rtol=0)


@cases("aim_prune_schedule_*.npz")
def test_aim_keep_rule(path):
    case = tensors(path)
    length, start, end = (int(case[key]) for key in ("seq_len", "visual_start", "visual_end_exclusive"))
    protected = torch.ones(length, dtype=torch.bool)
    protected[start:end] = False
    alive = torch.ones(length, dtype=torch.bool)
    for layer in range(28):
        alive = aim.kept(case["importance_per_layer"][layer], protected, alive, aim.retain_rate(layer, 14))
        assert torch.equal(alive, case["mask_after_layer"][layer].bool())


@cases("saint_vit_*.npz")
def test_saint_in_the_vit(path):
    case = tensors(path)
    kept = saint.drop_vit(case["metric"], int(case["n_special"]), float(case["sim_threshold"]))
    assert torch.equal(kept, case["kept_index_in_output_order"])


@cases("saint_llm_n*.npz")
def test_saint_in_the_llm(path):
    case = tensors(path)
    kept = saint.drop_llm(case["image_keys_head_mean"], float(case["sim_threshold"]))
    assert torch.equal(kept, case["kept_indices_sorted"][0])


@cases("saint_fullgraph_*.npz")
def test_saint_on_the_full_graph(path):
    case = tensors(path)
    kept, drops = saint.full_graph(case["keys_head_mean"][0, 1:], int(case["keep_num"]), int(case["r"]))
    assert torch.equal(kept, case["kept_patch_indices"]) and drops == case["drops_per_iteration"].tolist()


@cases("tome_n*.npz")
def test_tome(path):
    case = tensors(path)
    for crop, x in enumerate(case["tokens"]):
        size = torch.ones(len(x), 1)
        for stage, r in enumerate(case["stage_r"].tolist(), 1):
            x, size = tome.merge(case[f"stage{stage}_metric"][crop], r, x, size, bool(case["class_token"]))
            torch.testing.assert_close(x, case[f"stage{stage}_tokens"][crop], atol=1e-5, rtol=0)
            torch.testing.assert_close(size, case[f"stage{stage}_size"][crop])


def test_tome_schedules():
    case = tensors(GOLDEN / "tome_r_schedules.npz")
    asked = {"r8_const": 8, "r8_dec": (8, -1), "r16_dec": (16, -1), "r8_inc": (8, 1), "r8_half": (13, -0.5)}
    for name, r in asked.items():
        assert tome.schedule(len(case[name]), r) == case[name].tolist(), name


@cases("visionzip_case*.npz")
def test_visionzip(path):
    case = tensors(path)
    dominant, contextual = int(case["dominant_user"]), int(case["contextual"])
    for crop, attention in enumerate(case["cls_attention"]):
        out, places = visionzip.visionzip(
            attention, case["key_metric"][crop], case["hidden_states"][crop], dominant, contextual
        )
        torch.testing.assert_close(out, case["out_tokens"][crop], atol=1e-5, rtol=0)
        assert places.tolist() == case["out_all_indices"][crop].tolist()


@cases("visionzip_qwen25_*.npz")
def test_visionzip_for_qwen(path):
    case = tensors(path)
    importance, keys = visionzip.qwen_importance(case["q"], case["k"], case["window_index"])
    torch.testing.assert_close(importance, case["out_attn_logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(keys, case["out_attn_key"][0], atol=1e-5, rtol=0)
    image = case["input_ids"][0] == int(case["image_token_id"])
    stays, out = visionzip.qwen(
        importance, keys, case["inputs_embeds"][0][image], int(case["dominant_num"]), int(case["contextual_num"])
    )
    assert torch.equal(stays, case["out_keep_mask"][image])
    theirs = case["out_inputs_embeds"][0][image[case["out_keep_mask"]]]
    torch.testing.assert_close(out[stays], theirs, atol=1e-5, rtol=0)


@cases("pdrop_case*.npz")
def test_pyramiddrop(path):
    case = tensors(path)
    original = int(case["image_length"])
    for stage, ratio in enumerate(case["ratio_list"].tolist(), 1):
        score = case[f"stage{stage}_score_image"]
        kept = pyramiddrop.kept_local(score[None], 0, len(score), original, ratio)
        assert kept == case[f"stage{stage}_kept_local_sorted"].tolist()


@cases("sparsevlm_topk_*.npz")
def test_sparsevlm_raters_and_ranking(path):
    case = tensors(path)
    embeddings, start, n = case["embeddings"][0], int(case["pre"]), int(case["n_visual"])
    chosen, score = sparsevlm.raters(embeddings[start : start + n], embeddings[start + n :])
    torch.testing.assert_close(score, case["out_rater_score"][0], atol=1e-6, rtol=0)
    assert chosen == case["out_rater_local_index"].tolist()
    relation = sparsevlm.relation(case["attn_rows_text_to_image"][0], chosen)
    torch.testing.assert_close(relation, case["out_relation"][0], atol=1e-6, rtol=0)
    listed = int(case["out_keep_mask"].sum())
    assert sparsevlm.kept(relation, listed) == case["out_keep_mask"][0].nonzero().flatten().tolist()


@cases("sparsevlm_merge_*.npz")
def test_sparsevlm_merging(path):
    case = tensors(path)
    mine = sparsevlm.merged(case["x"][0], int(case["cluster_num"]), case["density_noise_uniform01"][0])
    torch.testing.assert_close(torch.tensor(mine), case["out_merged"][0], atol=1e-4, rtol=0)
