"""FastV end to end: the authors' outputs, reproduced by the native LlamaModel under our hooks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel
from transformers.cache_utils import DynamicCache

from harness.models.attention import TAP
from harness.models.llm import Decoder, Surgery, selected_layers
from harness.models.prompt import VisualRows
from methods.base import Budget, Plan, Shape, View
from methods.fastv import FastV

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.glob("fastv_case*.npz"))


def llama(case) -> LlamaModel:
    stored = np.load(GOLDEN / str(case["weights_file"]))
    weights = {name.replace("__", "."): torch.from_numpy(stored[name]) for name in stored.files if "__" in name}
    weights = {name.removeprefix("model."): value for name, value in weights.items()}
    config = LlamaConfig(
        vocab_size=8, hidden_size=64, intermediate_size=96, num_hidden_layers=6, rms_norm_eps=1e-6,
        num_attention_heads=int(case["num_heads"]), num_key_value_heads=int(case["num_kv_heads"]),
        rope_parameters={"rope_type": "default", "rope_theta": 1e4}, attn_implementation="sdpa",
    )  # fmt: skip
    model = LlamaModel(config).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing == ["embed_tokens.weight"] and not unexpected
    return model


class Prefilled:
    """The native model after a prefill under FastV's own plan and in_llm."""

    def __init__(self, case, embeds):
        self.model, n, start = llama(case), int(case["image_length"]), int(case["image_start"])
        shape = Shape(((1, n),), 0, 6, 1)
        pruner = FastV(k=int(case["fastv_k"]), depth=6, r=float(case["fastv_r"]))
        plan: Plan = pruner.plan(Budget("native", 0), shape)
        zero = torch.zeros(n, dtype=torch.int64)
        rows = VisualRows(zero, torch.arange(n), zero, torch.ones(n), (n,))

        def decide(site, hidden, sequence, signals):
            now = sequence.rows
            view = View(site, hidden, plan.keeps[site], now.image, now.unit, now.kind, now.size, shape, signals=signals)
            return pruner.in_llm(view)

        needs = pruner.needs(shape)
        rotary = lambda positions, like: self.model.rotary_emb(like, positions)  # noqa: E731
        decoder = Decoder(self.model.layers, "sdpa", rotary, 1)
        self.cache = DynamicCache()
        modules = [self.model.layers[need.layer].self_attn for need in needs]
        with TAP.watching(modules, ["sdpa"]) as captures, torch.no_grad():
            self.surgery = Surgery(
                decoder, selected_layers(plan.keeps), needs, decide, "original", rows, ((start, start + n),), captures
            )
            with self.surgery.installed():
                self.hidden = self.model(inputs_embeds=embeds, past_key_values=self.cache).last_hidden_state
                self.after_prefill = [self.cache.get_seq_length(layer) for layer in range(6)]
                self.kept = self._kept(start, n, embeds.shape[1])
                self.steps = [
                    self._step(
                        embeds.shape[1] + number, torch.from_numpy(case["decode_embeds"][:, number : number + 1])
                    )
                    for number in range(2)
                ]

    def _step(self, position, embed):
        where = torch.tensor([[position]])
        return self.model(inputs_embeds=embed, past_key_values=self.cache, position_ids=where).last_hidden_state

    def _kept(self, start, n, length):
        alive = self.surgery.rows.unit.tolist()
        return [i for i in range(length) if not start <= i < start + n or i - start in alive]


@pytest.mark.parametrize("name", CASES)
def test_prefill_cache_and_decoding_equal_the_authors(name):
    case = np.load(GOLDEN / name)
    ours = Prefilled(case, torch.from_numpy(case["inputs_embeds"]))
    assert ours.kept == case["keep_index"].tolist()
    assert ours.after_prefill == case["kv_len_per_layer_after_prefill"].tolist()
    assert np.abs(ours.hidden.numpy() - case["last_hidden_prefill"]).max() < 1e-4
    for number, step in enumerate(ours.steps, 1):
        assert np.abs(step.numpy() - case[f"last_hidden_decode_step{number}"]).max() < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_a_longer_prompt_is_pruned_anew(name):
    case = np.load(GOLDEN / name)
    longer = torch.from_numpy(np.concatenate([case["inputs_embeds"], case["decode_embeds"][:, :1]], axis=1))
    ours = Prefilled(case, longer)
    assert ours.kept == case["keep_index_nocache_step1"].tolist()
    assert np.abs(ours.hidden.numpy() - case["last_hidden_nocache_step1"]).max() < 1e-4
