"""The authors' tiny models as native transformers models, run under a pruner's own plan, signals and in_llm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model
from transformers.cache_utils import DynamicCache

from harness.models.attention import TAP
from harness.models.llm import Decoder, Surgery, selected_layers
from harness.models.prompt import VisualRows
from methods.base import Budget, Pruner, Shape, View
from methods.selection import Selection

GOLDEN = Path(__file__).parent / "golden"
Spans = tuple[tuple[int, int], ...]


def files(pattern: str) -> list[str]:
    return sorted(path.name for path in GOLDEN.glob(pattern))


def native_model(weights_file: str, heads: int, kv_heads: int, theta: float = 1e4) -> LlamaModel | Qwen2Model:
    """The native model of a weight file; Qwen2 where the projections have biases."""
    stored = np.load(GOLDEN / weights_file)
    weights = {name.replace("__", "."): torch.from_numpy(stored[name]) for name in stored.files if "__" in name}
    weights = {name.removeprefix("model."): value for name, value in weights.items()}
    qwen = "layers.0.self_attn.q_proj.bias" in weights
    build, configure = (Qwen2Model, Qwen2Config) if qwen else (LlamaModel, LlamaConfig)
    width, mlp = weights["layers.0.mlp.down_proj.weight"].shape
    config = configure(
        vocab_size=8, hidden_size=width, intermediate_size=mlp, rms_norm_eps=1e-6,
        num_hidden_layers=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers.")),
        num_attention_heads=heads, num_key_value_heads=kv_heads,
        rope_parameters={"rope_type": "default", "rope_theta": theta}, attn_implementation="sdpa",
    )  # fmt: skip
    model = build(config).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing == ["embed_tokens.weight"] and not unexpected
    return model


class Prefilled:
    """A native model after a prefill of `embeds` (1, S, d) in native mode; visual tokens stand in `spans`.

    hidden (1, S', d) after the final norm; kept: surviving places among the S; cached: cache length of each layer;
    selections, views: by layer of the site; entered: input of each layer after the hooks; tables: cos of each layer.
    """

    def __init__(self, model: LlamaModel | Qwen2Model, pruner: Pruner, embeds: Tensor, spans: Spans):
        n = sum(end - start for start, end in spans)
        self.model, self.pruner, self.length = model, pruner, embeds.shape[1]
        self.shape = Shape(((1, n),), 0, len(model.layers), 1)
        self.plan = pruner.plan(Budget("native", 0), self.shape)
        self.selections: dict[int, Selection] = {}
        self.views: dict[int, View] = {}
        self.entered: list[Tensor] = []
        self.tables: list[Tensor] = []
        zero = torch.zeros(n, dtype=torch.int64)
        rows = VisualRows(zero, torch.arange(n), zero, torch.ones(n), (n,))
        needs = pruner.needs(self.shape)
        decoder = Decoder(model.layers, "sdpa", lambda where, like: model.rotary_emb(like, where), 1)
        modules = [model.layers[need.layer].self_attn for need in needs]
        self.cache = DynamicCache()
        with TAP.watching(modules, ["sdpa"]) as captures, torch.no_grad():
            self.surgery = Surgery(
                decoder, selected_layers(self.plan.keeps), needs, self._decide, pruner.positions, rows, spans, captures
            )
            with self.surgery.installed(), self._watched():
                self.hidden = model(inputs_embeds=embeds, past_key_values=self.cache).last_hidden_state
            self.cached = [self.cache.get_seq_length(layer) for layer in range(len(model.layers))]
        places = torch.cat([torch.arange(start, end) for start, end in spans])
        alive = set(places[self.surgery.rows.unit].tolist())
        self.kept = [place for place in range(self.length) if place in alive or place not in set(places.tolist())]

    def _decide(self, site, hidden, sequence, signals) -> Selection | None:
        now, keep = sequence.rows, self.plan.keeps[site]
        view = View(site, hidden, keep, now.image, now.unit, now.kind, now.size, self.shape, signals=signals)
        selection = self.pruner.in_llm(view)
        selection.validate(view.n, view.keep)
        self.views[site.layer], self.selections[site.layer] = view, selection
        return selection

    def _watched(self):
        """Hooks behind the surgery's: what really enters each layer."""
        return _Hooks(self.model.layers, self._note)

    def _note(self, module, args, kwargs) -> None:
        self.entered.append(args[0] if args else kwargs["hidden_states"])
        self.tables.append(kwargs["position_embeddings"][0])

    @torch.no_grad()
    def decode(self, embeds: Tensor) -> list[Tensor]:
        """Hidden states (1, 1, d) of the next tokens, fed one by one behind the whole prompt."""
        out = []
        self.decode_tables: list[Tensor] = []
        with self.surgery.installed():
            for number in range(embeds.shape[1]):
                where = torch.tensor([[self.length + number]])
                step = embeds[:, number : number + 1]
                with _Hooks(self.model.layers, self._note_decoding):
                    hidden = self.model(inputs_embeds=step, past_key_values=self.cache, position_ids=where)
                out.append(hidden.last_hidden_state)
        return out

    def _note_decoding(self, module, args, kwargs) -> None:
        self.decode_tables.append(kwargs["position_embeddings"][0])

    def cos_of(self, positions: Sequence[int] | np.ndarray) -> Tensor:
        """The rotary table (1, T, head_dim) of given positions."""
        where = torch.tensor(positions)[None]
        return self.model.rotary_emb(self.hidden, where)[0]


class _Hooks:
    """Pre-hooks on all layers for the length of a block."""

    def __init__(self, layers, hook):
        self.layers, self.hook = layers, hook

    def __enter__(self):
        self.handles = [layer.register_forward_pre_hook(self.hook, with_kwargs=True) for layer in self.layers]

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


def case_of(name: str):
    return np.load(GOLDEN / name, allow_pickle=False)


def close(ours: Tensor, theirs: np.ndarray, tolerance: float = 1e-4) -> None:
    assert tuple(ours.shape) == theirs.shape
    assert np.abs(ours.numpy() - theirs).max() < tolerance
