"""AIM's hooks on the authors' inputs: merged tokens, importance, the schedule, and a whole tiny Qwen2."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_llm import Prefilled
from transformers import Qwen2Config, Qwen2Model
from views import view_of

from methods.aim import Aim, importance
from methods.base import IN_LLM, INTERFACE, Budget, Shape, Signal, Site
from methods.selection import reduce

GOLDEN = Path(__file__).parent / "golden"
MERGE = sorted(GOLDEN.glob("aim_merge_*.npz"))
IMPORTANCE = sorted(GOLDEN.glob("aim_importance_*.npz"))
SCHEDULE = sorted(GOLDEN.glob("aim_prune_schedule_*.npz"))
WHOLE = sorted(GOLDEN.glob("aim_e2e_*.npz"))


def test_every_golden_file_is_there():
    assert len(MERGE) >= 6 and len(IMPORTANCE) >= 3 and SCHEDULE and WHOLE


@pytest.mark.parametrize("path", MERGE, ids=lambda path: path.stem)
def test_merged_tokens_equal_the_authors_after_every_stage(path):
    golden = np.load(path)
    for crop, tokens in enumerate(torch.from_numpy(golden["tokens"])):
        n = len(tokens)
        shape = Shape(((1, n),), 24, 32, unit_patches=1)
        signals = {}
        if "metric" in golden:
            metric = torch.from_numpy(golden["metric"][crop])
            signals[Signal("keys", "vit", 23, rope=False)] = metric.view(n, 1, 2, -1)  # as two heads
        pruner = Aim(metric="keys" if signals else "tokens")
        k = n
        for stage, r in enumerate(golden["stage_r"].reshape(-1).tolist(), 1):
            k -= min(r, k // 2)
            selection = pruner.at_interface(view_of(Site(INTERFACE), tokens, k, shape, signals))
            selection.validate(n, k)
            if f"stage{stage}_tokens" not in golden:  # r = 0: theirs returns nothing, which stands for the input
                assert r == 0 and golden["stage1_returns_none"]
                assert torch.equal(reduce(selection, tokens), tokens)
                continue
            theirs = torch.from_numpy(golden[f"stage{stage}_tokens"][crop])
            torch.testing.assert_close(reduce(selection, tokens), theirs, atol=1e-5, rtol=0)
            if signals:
                theirs = torch.from_numpy(golden[f"stage{stage}_metric"][crop])
                torch.testing.assert_close(reduce(selection, metric), theirs, atol=1e-5, rtol=0)


def in_llm(logits: torch.Tensor, n: int, keep: int, layer: int = 15, pruner: Aim | None = None) -> list[int]:
    """What the hook keeps of the n first tokens of a layer with these logits (h, T, T)."""
    signal = Signal("logits", layer=layer - 1, queries="all", per_head=True, at=layer)
    view = view_of(Site(IN_LLM, layer), torch.zeros(n, 8), keep, Shape(((1, n),), 8, 28), {signal: logits})
    return (pruner or Aim()).in_llm(view).keep.tolist()


@pytest.mark.parametrize("path", IMPORTANCE, ids=lambda path: path.stem)
def test_importance_equals_the_authors_and_decides_what_stays(path):
    golden = np.load(path)
    logits, theirs = torch.from_numpy(golden["attention_logits_masked"][0]), torch.from_numpy(golden["importance"][0])
    ours = importance(logits, float(golden["tau"]), int(golden["iters"]))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    pruner = Aim(tau=float(golden["tau"]), iterations=int(golden["iters"]))
    assert (pruner.tau, pruner.iterations) == (0.1, 5) == (Aim().tau, Aim().iterations)
    n = len(theirs)
    ranked = sorted(range(n), key=lambda token: -float(theirs[token]))
    for keep in range(1, n):
        if theirs[ranked[keep - 1]] - theirs[ranked[keep]] > 1e-6:
            assert in_llm(logits, n, keep, pruner=pruner) == sorted(ranked[:keep])


@pytest.mark.parametrize("path", SCHEDULE, ids=lambda path: path.stem)
def test_the_schedule_drops_the_authors_tokens_after_every_layer(path):
    """Logits are made so that PageRank is the stored importance: one head, each row tau x log(importance)."""
    golden = np.load(path)
    start, end, length = (int(golden[key]) for key in ("visual_start", "visual_end_exclusive", "seq_len"))
    n = end - start
    plan = Aim(merge=1.0).plan(Budget("native", 0), Shape(((1, n),), 8, 28))
    assert plan.entering[1:] == tuple(golden["visual_kept_after_layer"][:-1].tolist())
    alive = list(range(n))
    for layer in range(28):
        site = Site(IN_LLM, layer + 1)
        if site in plan.keeps:
            text = [place for place in range(length) if not start <= place < end]
            now = [start + token for token in alive] + text
            score = torch.from_numpy(golden["importance_per_layer"][layer])[now]
            logits = (0.1 * score.log()).expand(1, len(now), -1)
            alive = [alive[row] for row in in_llm(logits, len(alive), plan.keeps[site], layer + 1)]
        if layer < 27:  # nothing runs behind the last layer
            assert alive == np.flatnonzero(golden["mask_after_layer"][layer][start:end]).tolist()
            assert golden["mask_after_layer"][layer].sum() == len(alive) + length - n


def tiny_qwen2(golden) -> Qwen2Model:
    weights = {name[2:].replace("/", "."): torch.from_numpy(golden[name]) for name in golden.files if name[:2] == "w/"}
    weights = {name.removeprefix("model."): value for name, value in weights.items()}
    width, mlp = weights["layers.0.mlp.down_proj.weight"].shape
    config = Qwen2Config(
        vocab_size=8, hidden_size=width, intermediate_size=mlp, num_hidden_layers=28,
        num_attention_heads=int(golden["num_heads"]), num_key_value_heads=int(golden["num_kv_heads"]),
        rms_norm_eps=float(golden["rms_eps"]), attn_implementation="sdpa",
        rope_parameters={"rope_type": "default", "rope_theta": float(golden["rope_theta"])},
    )  # fmt: skip
    model = Qwen2Model(config).eval()
    missing, unexpected = model.load_state_dict({k: v for k, v in weights.items() if "embed" not in k}, strict=False)
    assert missing == ["embed_tokens.weight"] and not unexpected
    return model


@pytest.fixture(scope="module", params=WHOLE, ids=lambda path: path.stem)
def whole(request):
    golden = np.load(request.param)
    spans = ((int(golden["visual_start"]), int(golden["visual_end_exclusive"])),)
    embeds = torch.from_numpy(golden["inputs_embeds"])
    return golden, spans[0], Prefilled(tiny_qwen2(golden), Aim(merge=1.0), embeds, spans)


def test_a_whole_model_drops_what_removing_tokens_drops(whole):
    golden, (start, end), ours = whole
    alive = list(range(start, end))
    for layer in range(27):
        if layer + 1 in ours.selections:
            view, keep = ours.views[layer + 1], ours.selections[layer + 1].keep
            alive = (start + view.unit[keep]).tolist()
        removed = golden["physical_removal_mask_after_layer"][layer]
        assert alive == (start + np.flatnonzero(removed[start:end])).tolist()
        assert len(alive) == golden["mask_after_layer"][layer][start:end].sum()  # as many as the authors hide


def test_a_whole_model_agrees_with_the_authors_masking_up_to_what_the_masked_rows_add(whole):
    golden, (start, end), ours = whole
    theirs, removed = golden["mask_after_layer"], golden["physical_removal_mask_after_layer"]
    same = [layer for layer in range(28) if np.array_equal(theirs[layer], removed[layer])]
    assert same[:19] == list(range(19))  # all layers before the ramp, and most of it
    text = [place for place in range(theirs.shape[1]) if not start <= place < end]
    assert ours.kept == text
    hidden = golden["last_hidden_state"][:, text]
    before = text[:start]  # sees no visual token: must be equal
    assert np.abs(ours.hidden[:, : len(before)].numpy() - hidden[:, : len(before)]).max() < 1e-4
    assert np.abs(ours.hidden.numpy() - hidden).max() < 0.1  # theirs and ours differ by design
