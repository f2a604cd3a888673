"""The authors' tiny models as native transformers models, run under a pruner's own plan, signals and in_llm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model
from transformers.cache_utils import DynamicCache

from harness.models.attention import TAP
from harness.models.decoder import Decoder, Surgery, selected_layers
from harness.models.prompt import VisualRows
from harness.models.sequence import Sequence as PromptState
from harness.validate.golden.case import GoldenCase, Mismatch
from methods.base import Budget, Pruner, Shape, Signal, Site, View
from methods.selection import Selection

Spans = tuple[tuple[int, int], ...]


def model_beside(case: GoldenCase, theta: float = 1e4) -> LlamaModel | Qwen2Model:
    """The native model of the weight file that a case names; Qwen2 where the projections have biases."""
    stored = case.beside(case.text("weights_file"))
    weights = {name.replace("__", "."): stored.tensor(name) for name in stored.names if "__" in name}
    heads = case.integer("num_heads")
    kv_heads = case.integer("num_kv_heads") if "num_kv_heads" in case else heads
    epsilon = case.number("rms_norm_eps") if "rms_norm_eps" in case else 1e-6
    return native_model(weights, heads, kv_heads, theta, epsilon)


def native_model(
    weights: Mapping[str, Tensor], heads: int, kv_heads: int, theta: float, epsilon: float
) -> LlamaModel | Qwen2Model:
    """A native model with these weights, named as in its state dict. Raises Mismatch for others."""
    weights = {name.removeprefix("model."): value for name, value in weights.items() if "embed_tokens" not in name}
    for name in ("layers.0.mlp.down_proj.weight", "norm.weight"):
        if name not in weights:
            raise Mismatch(f"its weights lack {name}")
    qwen = "layers.0.self_attn.q_proj.bias" in weights
    build, configure = (Qwen2Model, Qwen2Config) if qwen else (LlamaModel, LlamaConfig)
    width, mlp = weights["layers.0.mlp.down_proj.weight"].shape
    config = configure(
        vocab_size=8, hidden_size=width, intermediate_size=mlp, rms_norm_eps=epsilon,
        num_hidden_layers=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers.")),
        num_attention_heads=heads, num_key_value_heads=kv_heads,
        rope_parameters={"rope_type": "default", "rope_theta": theta}, attn_implementation="sdpa",
    )  # fmt: skip
    model = build(config).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if missing != ["embed_tokens.weight"] or unexpected:
        raise Mismatch(f"its weights lack {missing[1:4]} and have {unexpected[:3]} too many")
    return model


class GoldenPrefill:
    """A native model after a prefill of `embeds` (1, S, d) in native mode; visual tokens stand in `spans`.

    hidden (1, S', d) after the final norm; kept: surviving places among the S; cached: cache length of each layer;
    selections, views: by layer of the site; received, entered: input of each layer before and after the hooks;
    tables: cos of each layer.
    """

    def __init__(self, model: LlamaModel | Qwen2Model, pruner: Pruner, embeds: Tensor, spans: Spans):
        n = sum(end - start for start, end in spans)
        self.model, self.pruner, self.length = model, pruner, embeds.shape[1]
        self.shape = Shape(((1, n),), 0, len(model.layers), 1)
        self.plan = pruner.plan(Budget("native", 0), self.shape)
        self.selections: dict[int, Selection] = {}
        self.views: dict[int, View] = {}
        self.received: list[Tensor] = []
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
            with self._watched(self._note_received), self.surgery.installed(), self._watched(self._note_entered):
                self.hidden = model(inputs_embeds=embeds, past_key_values=self.cache).last_hidden_state
            self.cached = [self.cache.get_seq_length(layer) for layer in range(len(model.layers))]
        places = torch.cat([torch.arange(start, end) for start, end in spans])
        alive = set(places[self.surgery.rows.unit].tolist())
        self.kept = [place for place in range(self.length) if place in alive or place not in set(places.tolist())]

    def _decide(
        self, site: Site, hidden: Tensor, sequence: PromptState, signals: Mapping[Signal, Tensor]
    ) -> Selection | None:
        now, keep = sequence.rows, self.plan.keeps[site]
        view = View(site, hidden, keep, now.image, now.unit, now.kind, now.size, self.shape, signals=signals)
        selection = self.pruner.in_llm(view)
        if selection is not None:
            selection.validate(view.n, view.keep)
            self.views[site.layer], self.selections[site.layer] = view, selection
        return selection

    @contextmanager
    def _watched(self, note: Callable[..., None]) -> Iterator[None]:
        handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in self.model.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note_received(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.received.append(args[0] if args else kwargs["hidden_states"])

    def _note_entered(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.entered.append(args[0] if args else kwargs["hidden_states"])
        self.tables.append(kwargs["position_embeddings"][0])

    @torch.no_grad()
    def decode(self, embeds: Tensor) -> list[Tensor]:
        """Hidden states (1, 1, d) of the next tokens, fed one by one behind the whole prompt."""
        out = []
        self.decode_tables: list[Tensor] = []
        with self.surgery.installed(), self._watched(self._note_decoding):
            for number in range(embeds.shape[1]):
                where = torch.tensor([[self.length + number]])
                step = embeds[:, number : number + 1]
                hidden = self.model(inputs_embeds=step, past_key_values=self.cache, position_ids=where)
                out.append(hidden.last_hidden_state)
        return out

    def _note_decoding(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.decode_tables.append(kwargs["position_embeddings"][0])

    def cos_of(self, positions: Sequence[int] | np.ndarray) -> Tensor:
        """The rotary table (1, T, head_dim) of given positions."""
        return self.model.rotary_emb(self.hidden, torch.tensor(positions)[None])[0]
