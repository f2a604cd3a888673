"""LLaVA-1.5: CLIP tower with CLS and learned positions, Linear-GELU-Linear, a Llama, Mistral or Qwen2 with 1-d RoPE.

The staged vision loop calls the model's own sub-modules in the order of `CLIPVisionModel.forward` (transformers
5.18-5.23). Features are taken from the layer that the configuration names (-2, so the tower's last block is computed
natively and never used): the loop runs only the blocks that are used, for the unpruned baseline too. A unit is one
patch. Images of equal length run as one batch, as they do natively, others one by one. Apache-2.0 upstream.
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
from harness.models.attention import TAP
from harness.models.family import Family, Features, Inputs, single_prompt, weights_hash
from harness.models.llm import Decoder
from harness.models.prompt import Prompt, image_spans, with_placeholders
from harness.models.resizing import cut, resampled
from harness.models.template import Turn, turn_of
from harness.models.vision import Segment, VisionState, count_by_image
from methods.base import ModelInfo, Shape

Grids = tuple[tuple[int, int], ...]


class Llava(Family):
    model_type = "llava"
    rope = "1d"

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
        self.text = model.model.language_model
        self.projector = model.model.multi_modal_projector
        self.patch_px = config.vision_config.patch_size
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
            unit_patches=1,
            rope=self.rope,
            projector=projector,
            projector_hash=weights_hash({**projector, "embed_tokens": self.text.embed_tokens.weight.detach()}),
            folder=self.model.config._name_or_path or None,
        )

    def inputs(self, processed: Mapping[str, Any]) -> Inputs:
        ids, pixels = single_prompt(processed), processed["pixel_values"]
        grid = tuple(side // self.patch_px for side in pixels.shape[-2:])
        return self._laid_out(ids, pixels, (grid,) * pixels.shape[0])

    def _laid_out(self, host_ids: Tensor, pixels: Tensor, grids: Grids) -> Inputs:
        """The inputs of a prompt whose placeholders fit its images' grids."""
        counts = [rows * columns for rows, columns in grids]
        spans = image_spans(host_ids[0].tolist(), self.model.config.image_token_id, counts)
        device = self.model.device
        geometry = {
            "image": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
            "unit": torch.cat([torch.arange(count) for count in counts]),
        }
        positions = torch.arange(host_ids.shape[1])[None]
        return Inputs(
            prompt=Prompt(host_ids.to(device), positions.to(device), spans),
            pixels=pixels.to(device),
            geometry={name: tensor.to(device) for name, tensor in geometry.items()},
            question_ids=self._question(host_ids[0], spans[0][0], spans[-1][1]).to(device),
            shape=self._shape(grids),
        )

    def _shape(self, grids: Grids) -> Shape:
        vision = self.model.config.vision_config
        return Shape(
            grids,
            self.vit_layers,
            len(self.text.layers),
            unit_patches=1,
            vit_cls=True,
            vit_head_width=vision.hidden_size // vision.num_attention_heads,
            llm_head_width=self.text.layers[0].self_attn.head_dim,
            llm_heads=self.text.config.num_attention_heads,
        )

    def _question(self, ids: Tensor, before: int, behind: int) -> Tensor:
        """Text of the user's turn behind the last image; where the image comes last, the text before the first."""
        config = self.model.generation_config
        stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        return torch.tensor(self.turn.question(ids.tolist(), before, behind, stops))

    def _units(self, inputs: Inputs) -> Tensor:
        """Pixels of every unit as the tower takes them, (n, 3, p, p)."""
        if inputs.pixels.shape[-1] == self.patch_px:
            return inputs.pixels
        rows, columns = inputs.shape.grids[0]
        pixels = inputs.pixels[..., : rows * self.patch_px, : columns * self.patch_px]
        return torch.cat([cut(image, self.patch_px) for image in pixels])

    def unit_pixels(self, inputs: Inputs, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        units = self._units(inputs)
        scale, shift = (units.new_tensor(values).view(1, 3, 1, 1) for values in (std, mean))
        return (units * scale + shift).clamp(0, 1)

    def resized(self, inputs: Inputs, grids: Grids, mean: Sequence[float], std: Sequence[float]) -> Inputs:
        units = resampled(self.unit_pixels(inputs, mean, std), inputs.shape.grids, grids)
        scale, shift = (units.new_tensor(values).view(1, 3, 1, 1) for values in (std, mean))
        return self._laid_out(with_placeholders(inputs.prompt, grids).cpu(), (units - shift) / scale, grids)

    def embed(self, inputs: Inputs, keep: Tensor | None) -> VisionState:
        image, unit = inputs.geometry["image"], inputs.geometry["unit"]
        counts = list(inputs.shape.images)
        patches, positions = self._embedded(inputs, keep), self._positions(inputs.shape.grids)
        if keep is not None:
            image, unit, positions = image[keep], unit[keep], positions[keep]
            counts = count_by_image(image, len(counts))
        embeddings = self.tower.embeddings
        cls = (embeddings.class_embedding + embeddings.position_embedding.weight[0])[None]  # (1, d)
        segments = tuple(Segment(0, count, False, prefix=1) for count in counts)
        size = torch.ones(unit.shape[0], device=unit.device)
        state = VisionState(patches, None, None, segments, unit, image, size, patches=1)
        rows = (patches + positions)[:, None]  # (n, 1, d)
        hidden = state.join([cls] * len(counts), rows, [None] * len(counts))
        return replace(state, hidden=self.tower.pre_layrnorm(hidden))

    def _embedded(self, inputs: Inputs, keep: Tensor | None) -> Tensor:
        """Patches without positions, (n, d): of whole images as natively, or of single units."""
        convolve = self.tower.embeddings.patch_embedding
        if keep is None and inputs.pixels.shape[-1] != self.patch_px:
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
                px = rows * self.patch_px, columns * self.patch_px
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

    @property
    def vit_layers(self) -> int:
        return len(self.blocks)

    @property
    def kernels(self) -> tuple[str, str]:
        return self.tower.config._attn_implementation, self.text.config._attn_implementation

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
            "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features.tokens.split(counts))},
        }

    def deepstack_hook(self) -> None:
        return None
