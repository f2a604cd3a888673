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

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from harness.errors import UsageError
from harness.models.attention import TAP, Capture
from harness.models.family import Family, Features, Inputs, single_prompt, weights_hash
from harness.models.llm import Decoder
from harness.models.prompt import Prompt, image_spans, with_placeholders
from harness.models.resizing import Grid, cut, resampled
from harness.models.template import Turn, turn_of
from harness.models.tiles import batches, joined, tile_by_tile
from harness.models.vision import Segment, VisionState, count_by_image
from harness.models.vit_signals import vit_signal
from methods.base import ModelInfo, Shape, Signal

Grids = tuple[Grid, ...]


class InternVL(Family):
    model_type = "internvl"
    rope = "1d"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        config = model.config
        if config.vision_feature_layer != -1 or config.vision_feature_select_strategy != "default":
            raise UsageError(
                "InternVL can be pruned with the features of its last layer without CLS, this one takes layer "
                f"{config.vision_feature_layer} with strategy {config.vision_feature_select_strategy!r}"
            )
        self.vision = model.model.vision_tower
        if self.vision.embeddings.position_embeddings is None:
            raise UsageError("InternVL can be pruned with learned positions, this one has none")
        self.blocks = self.vision.encoder.layer
        self.projector = model.model.multi_modal_projector
        self.text = model.model.language_model
        self.merge = round(1 / config.downsample_ratio)
        self.unit_px = self.merge * config.vision_config.patch_size[0]
        self.turn = Turn()

    def read_template(self, processor: Any) -> None:
        self.turn = turn_of(processor)

    def _info(self) -> ModelInfo:
        vision, text = self.model.config.vision_config, self.model.config.text_config
        projector = {name: parameter.detach() for name, parameter in self.projector.named_parameters()}
        return ModelInfo(
            family=self.model_type,
            vit_layers=self.vit_layers,
            llm_layers=text.num_hidden_layers,
            vit_width=vision.hidden_size,
            llm_width=text.hidden_size,
            unit_patches=self.merge**2,
            rope=self.rope,
            projector=projector,
            projector_hash=weights_hash({**projector, "embed_tokens": self.text.embed_tokens.weight.detach()}),
            folder=self.model.config._name_or_path or None,
        )

    def inputs(self, processed: Mapping[str, Any]) -> Inputs:
        ids, pixels = single_prompt(processed), processed["pixel_values"]
        grid = (pixels.shape[-2] // self.unit_px, pixels.shape[-1] // self.unit_px)
        return self._laid_out(ids, pixels, (grid,) * pixels.shape[0])

    def _laid_out(self, host_ids: Tensor, pixels: Tensor, grids: Grids) -> Inputs:
        """The inputs of a prompt whose placeholders fit its tiles' grids."""
        counts = [rows * columns for rows, columns in grids]
        spans = image_spans(host_ids[0].tolist(), self.model.config.image_token_id, counts)
        device = self.model.device
        geometry = {
            "image": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
            "unit": torch.cat([torch.arange(count) for count in counts]),
            "patches": self._patches(grids),
        }
        return Inputs(
            prompt=Prompt(host_ids.to(device), torch.arange(host_ids.shape[1], device=device)[None], spans),
            pixels=pixels.to(device),
            geometry={name: tensor.to(device) for name, tensor in geometry.items()},
            question_ids=self._question(host_ids[0], spans[0][0], spans[-1][1]).to(device),
            shape=self._shape(grids),
        )

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

    def _shape(self, grids: Grids) -> Shape:
        vision = self.model.config.vision_config
        return Shape(
            grids,
            self.vit_layers,
            len(self.text.layers),
            unit_patches=self.merge**2,
            vit_cls=True,
            vit_head_width=vision.hidden_size // vision.num_attention_heads,
            llm_head_width=self.text.layers[0].self_attn.head_dim,
            llm_heads=self.text.config.num_attention_heads,
        )

    def _question(self, ids: Tensor, before: int, behind: int) -> Tensor:
        """Text of the user's turn behind the last image; where the image comes last, the text before the first.

        Each picture stands between a start and an end token, which are no text.
        """
        config = self.model.generation_config
        stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        return torch.tensor(self.turn.question(ids.tolist(), before - 1, behind + 1, stops))

    def _units(self, inputs: Inputs) -> Tensor:
        """Pixels of every unit as the tower takes them, (n, 3, u, u)."""
        if inputs.pixels.shape[-1] == self.unit_px:
            return inputs.pixels
        return torch.cat([cut(tile, self.unit_px) for tile in inputs.pixels])

    def unit_pixels(self, inputs: Inputs, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        units = self._units(inputs)
        scale, shift = (units.new_tensor(values).view(1, 3, 1, 1) for values in (std, mean))
        return (units * scale + shift).clamp(0, 1)

    def resized(self, inputs: Inputs, grids: Grids, mean: Sequence[float], std: Sequence[float]) -> Inputs:
        units = resampled(self.unit_pixels(inputs, mean, std), inputs.shape.grids, grids)
        scale, shift = (units.new_tensor(values).view(1, 3, 1, 1) for values in (std, mean))
        return self._laid_out(with_placeholders(inputs.prompt, grids).cpu(), (units - shift) / scale, grids)

    def embed(self, inputs: Inputs, keep: Tensor | None) -> VisionState:
        image, unit, patches = (inputs.geometry[name] for name in ("image", "unit", "patches"))
        counts = list(inputs.shape.images)
        if keep is not None:
            image, unit, patches = image[keep], unit[keep], patches[keep]
            counts = count_by_image(image, len(counts))
        embeddings = self.vision.embeddings
        cls = embeddings.cls_token[0] + embeddings.position_embeddings[0, :1]  # (1, d)
        rows = self._embedded(inputs, keep) + self._positions(inputs.shape.grids)[patches]  # (n, g, d)
        segments = tuple(Segment(0, count, False, prefix=1) for count in counts)
        size = torch.ones(unit.shape[0], device=unit.device)
        state = VisionState(rows, None, None, segments, unit, image, size, self.merge**2)
        return replace(state, hidden=state.join([cls] * len(counts), rows, [None] * len(counts)))

    def _embedded(self, inputs: Inputs, keep: Tensor | None) -> Tensor:
        """Patches without positions, (n, g, d): of whole tiles as natively, or of single units."""
        embed = self.vision.embeddings.patch_embeddings
        if keep is None and inputs.pixels.shape[-1] != self.unit_px:
            return embed(inputs.pixels.to(self.model.dtype)).flatten(0, 1)[inputs.geometry["patches"]]
        units = self._units(inputs)
        order = self._shuffled(1, 1)[0].to(units.device)
        return embed((units if keep is None else units[keep]).to(self.model.dtype))[:, order]

    def _positions(self, grids: Grids) -> Tensor:
        """Learned positions of all patches in raster order, (n * g, d); interpolated where a tile was resized."""
        embeddings, tables = self.vision.embeddings, {}
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
        _, units, aggregates = state.split(self.vision.layernorm(state.hidden))
        rows = state.outputs(units, aggregates)  # (n, g, d)
        return Features(self.projector(rows.flatten(1)), (), rows)

    @property
    def vit_layers(self) -> int:
        return len(self.blocks)

    @property
    def kernels(self) -> tuple[str, str]:
        return self.vision.config._attn_implementation, self.text.config._attn_implementation

    @property
    def decoder(self) -> Decoder:
        return Decoder(
            layers=self.text.layers,
            kernel=self.kernels[1],
            rotary_at=lambda positions, like: self.text.rotary_emb(like, positions),
            position_rows=1,
        )

    def forward_arguments(self, prompt: Prompt, features: Features, counts: tuple[int, ...]) -> dict[str, Any]:
        return {
            "input_ids": prompt.input_ids,
            "attention_mask": torch.ones_like(prompt.input_ids),
            "position_ids": prompt.positions,
            "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features.tokens[None])},
        }

    def deepstack_hook(self) -> None:
        return None
