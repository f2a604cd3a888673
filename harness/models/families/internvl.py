"""InternVL3: tiles through an InternViT with CLS and layer scale, 2x2 pixel shuffle, norm-linear-GELU-linear, Qwen2.

The staged vision loop calls the model's own sub-modules in the order of `InternVLVisionModel.forward` and
`InternVLModel.get_image_features` (transformers 5.18-5.23). Apache-2.0 upstream, nothing copied.

An image of the harness is one tile, the thumbnail among them: the tower attends tile by tile, and the prompt holds the
tiles of a picture one behind the other. A picture of twelve tiles and a thumbnail so has 13 grids of 16 x 16 units,
each with its share of a budget that is shared by image, its own [Q-CLS] and its own aggregate.

The tower runs with the patches of a unit side by side instead of in raster order, which attention does not mind:
features equal the native ones to rounding. Which patches make a unit is read from the model's own `pixel_shuffle`.
A resized tile gets interpolated positions; the number of tiles stays.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.models.attention import TAP, Capture
from harness.models.families.cls_tower import ClsTower, Grids
from harness.models.families.family import Features, Inputs
from harness.models.families.tiles import batches, joined, tile_by_tile
from harness.models.signals import vit_signal
from harness.models.vision_state import VisionState
from harness.records.errors import UsageError
from methods.base import Signal


class InternVL(ClsTower):
    model_type = "internvl"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        config = model.config
        if config.vision_feature_layer != -1 or config.vision_feature_select_strategy != "default":
            raise UsageError(
                "InternVL can be pruned with the features of its last layer without CLS, this one takes layer "
                f"{config.vision_feature_layer} with strategy {config.vision_feature_select_strategy!r}"
            )
        self.tower = model.model.vision_tower
        if self.tower.embeddings.position_embeddings is None:
            raise UsageError("InternVL can be pruned with learned positions, this one has none")
        self.blocks = self.tower.encoder.layer
        self.merge = round(1 / config.downsample_ratio)
        self.unit_px = self.merge * config.vision_config.patch_size[0]
        self.unit_patches = self.merge**2

    def _geometry(self, grids: Grids) -> dict[str, Tensor]:
        return {**super()._geometry(grids), "patches": self._patches(grids)}

    def _patches(self, grids: Grids) -> Tensor:
        """(n, g): where the patches of each unit stand among those of all tiles in raster order."""
        orders = {(rows, columns): self._shuffled(rows, columns) for rows, columns in set(grids)}
        parts, before = [], 0
        for grid in grids:
            parts.append(orders[grid] + before)
            before += orders[grid].numel()
        return torch.cat(parts)

    def _shuffled(self, rows: int, columns: int) -> Tensor:
        """(rows * columns, g): the patches of each unit of one tile, as the model itself puts them together."""
        m = self.merge
        raster = torch.arange(rows * m * columns * m).view(1, rows * m, columns * m, 1)
        return self.model.model.pixel_shuffle(raster, scale_factor=self.model.config.downsample_ratio).flatten(0, 2)

    def _question(self, ids: Tensor, before: int, behind: int) -> Tensor:
        """As of every tower; each picture stands between a start and an end token, which are no text."""
        return super()._question(ids, before - 1, behind + 1)

    def _unit_rows(self, inputs: Inputs, keep: Tensor | None) -> Tensor:
        patches = inputs.geometry["patches"]
        positions = self._positions(inputs.shape.grids)
        return self._embedded(inputs, keep) + positions[patches if keep is None else patches[keep]]

    def _cls(self) -> Tensor:
        embeddings = self.tower.embeddings
        return embeddings.cls_token[0] + embeddings.position_embeddings[0, :1]

    def _embedded(self, inputs: Inputs, keep: Tensor | None) -> Tensor:
        """Patches without positions, (n, g, d): of whole tiles as natively, or of single units."""
        embed = self.tower.embeddings.patch_embeddings
        if keep is None and inputs.pixels.shape[-1] != self.unit_px:
            return embed(inputs.pixels.to(self.model.dtype)).flatten(0, 1)[inputs.geometry["patches"]]
        units = self._units(inputs)
        order = self._shuffled(1, 1)[0].to(units.device)
        return embed((units if keep is None else units[keep]).to(self.model.dtype))[:, order]

    def _positions(self, grids: Grids) -> Tensor:
        """Learned positions of all patches in raster order, (n * g, d); interpolated where a tile was resized."""
        embeddings, tables = self.tower.embeddings, {}
        for rows, columns in set(grids):
            like = embeddings.position_embeddings[:, :1].expand(-1, 1 + rows * columns * self.merge**2, -1)
            px = rows * self.unit_px, columns * self.unit_px
            tables[rows, columns] = embeddings.interpolate_pos_encoding(like, *px)[0, 1:]
        return torch.cat([tables[grid] for grid in grids])

    def run_attention(self, number: int, state: VisionState) -> VisionState:
        block, lengths = self.blocks[number], state.lengths
        tiles = batches(block.layernorm_before(state.hidden), lengths)
        biases = batches(torch.cat(state.key_bias()), lengths) if state.biased else None
        with TAP.biasing(block.attention, biases, self.kernels[0]) if biases else nullcontext():
            attended = joined([block.attention(some)[0] for some in tiles], lengths)
        return replace(state, hidden=block.lambda_1 * attended + state.hidden)

    def run_mlp(self, number: int, state: VisionState) -> VisionState:
        block = self.blocks[number]
        return replace(state, hidden=block.lambda_2 * block.mlp(block.layernorm_after(state.hidden)) + state.hidden)

    def vision_attention(self, number: int) -> nn.Module:
        return self.blocks[number].attention

    def vision_signal(self, signal: Signal, state: VisionState, captures: list[Capture]) -> Tensor:
        return vit_signal(signal, state, tile_by_tile(captures, state.lengths))

    def project(self, state: VisionState) -> Features:
        _, units, aggregates = state.split(self.tower.layernorm(state.hidden))
        rows = state.outputs(units, aggregates)  # (n, g, d)
        return Features(self.projector(rows.flatten(1)), (), rows)

    def _pooled(self, features: Features, counts: tuple[int, ...]) -> Tensor:
        return features.tokens[None]
