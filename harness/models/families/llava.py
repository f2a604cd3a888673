"""LLaVA-1.5: CLIP tower with CLS and learned positions, Linear-GELU-Linear, a Llama, Mistral or Qwen2 with 1-d RoPE.

The staged vision loop calls the model's own sub-modules in the order of `CLIPVisionModel.forward` (transformers
5.18-5.23). Features are taken from the layer that the configuration names (-2, so the tower's last block is computed
natively and never used): the loop runs only the blocks that are used, for the unpruned baseline too. A unit is one
patch. Images of equal length run as one batch, as they do natively, others one by one. Apache-2.0 upstream.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.models.attention import TAP
from harness.models.families.cls_tower import ClsTower, Grids
from harness.models.families.family import Features, Inputs
from harness.models.vision_state import VisionState
from harness.records.errors import UsageError


class Llava(ClsTower):
    model_type = "llava"
    unit_patches = 1

    def __init__(self, model: nn.Module):
        super().__init__(model)
        config = model.config
        if config.vision_config.model_type != "clip_vision_model":
            raise UsageError(f"LLaVA with a CLIP tower can be pruned, this one has {config.vision_config.model_type}")
        if config.vision_feature_select_strategy != "default" or not isinstance(config.vision_feature_layer, int):
            raise UsageError(
                "LLaVA can be pruned with the features of one layer without CLS, this one takes "
                f"{config.vision_feature_layer} with strategy {config.vision_feature_select_strategy!r}"
            )
        tower = model.model.vision_tower
        self.tower = getattr(tower, "vision_model", tower)
        layers = self.tower.encoder.layers
        self.blocks = layers[: range(len(layers) + 1)[config.vision_feature_layer]]
        self.unit_px = config.vision_config.patch_size

    def _unit_rows(self, inputs: Inputs, keep: Tensor | None) -> Tensor:
        positions = self._positions(inputs.shape.grids)
        return (self._embedded(inputs, keep) + (positions if keep is None else positions[keep]))[:, None]

    def _cls(self) -> Tensor:
        embeddings = self.tower.embeddings
        return (embeddings.class_embedding + embeddings.position_embedding.weight[0])[None]

    def _normed(self, hidden: Tensor) -> Tensor:
        return self.tower.pre_layrnorm(hidden)

    def _embedded(self, inputs: Inputs, keep: Tensor | None) -> Tensor:
        """Patches without positions, (n, d): of whole images as natively, or of single units."""
        convolve = self.tower.embeddings.patch_embedding
        if keep is None and inputs.pixels.shape[-1] != self.unit_px:
            return convolve(inputs.pixels.to(convolve.weight.dtype)).flatten(2).transpose(1, 2).flatten(0, 1)
        units = self._units(inputs)
        return convolve((units if keep is None else units[keep]).to(convolve.weight.dtype)).flatten(1)

    def _positions(self, grids: Grids) -> Tensor:
        """Learned positions of all units, (n, d); a grid that is not the tower's gets interpolated ones."""
        embeddings, tables = self.tower.embeddings, {}
        for rows, columns in set(grids):
            if rows == columns and rows * columns == embeddings.num_patches:
                tables[rows, columns] = embeddings.position_embedding.weight[1:]
            else:
                like = embeddings.position_embedding.weight[None, :1].expand(1, 1 + rows * columns, -1)
                px = rows * self.unit_px, columns * self.unit_px
                tables[rows, columns] = embeddings.interpolate_pos_encoding(like, *px)[0, 1:]
        return torch.cat([tables[grid] for grid in grids])

    def run_attention(self, number: int, state: VisionState) -> VisionState:
        block, lengths = self.blocks[number], state.lengths
        normed = block.layer_norm1(state.hidden)
        together = len(set(lengths)) == 1
        parts = [normed.view(len(lengths), lengths[0], -1)] if together else [p[None] for p in normed.split(lengths)]
        biases = self._biases(state, together) if state.biased else None
        with TAP.biasing(block.self_attn, biases, self.kernels[0]) if biases else nullcontext():
            attended = [block.self_attn(hidden_states=part, attention_mask=None)[0].flatten(0, 1) for part in parts]
        return replace(state, hidden=state.hidden + torch.cat(attended))

    @staticmethod
    def _biases(state: VisionState, together: bool) -> list[Tensor]:
        """One (images, tokens) for each attention call."""
        biases = state.key_bias()
        return [torch.stack(biases)] if together else [bias[None] for bias in biases]

    def run_mlp(self, number: int, state: VisionState) -> VisionState:
        block = self.blocks[number]
        return replace(state, hidden=state.hidden + block.mlp(block.layer_norm2(state.hidden)))

    def vision_attention(self, number: int) -> nn.Module:
        return self.blocks[number].self_attn

    def project(self, state: VisionState) -> Features:
        _, units, aggregates = state.split(state.hidden)
        rows = state.outputs(units, aggregates)  # (n, 1, d)
        return Features(self.projector(rows.flatten(0, 1)), (), rows)
