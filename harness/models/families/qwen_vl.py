"""What the Qwen-VL families share: packed patches in blocks of 2x2, varlen ViT attention, M-RoPE, chat markers.

The staged vision loop calls the model's own sub-modules in the order of their native `forward` (transformers
5.18-5.23); the LLM runs through the public `forward` / `generate`. Apache-2.0 upstream, nothing copied.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.vision_utils import get_vision_position_ids

from harness.models.attention import TAP
from harness.models.decoder import Decoder
from harness.models.families.family import Family, Inputs, Picture, single_prompt, weights_hash
from harness.models.families.resizing import resampled
from harness.models.prompt import Prompt, image_spans, with_placeholders
from harness.models.vision_state import Segment, VisionState, count_by_image
from methods.base import ModelInfo, Shape

Grids = tuple[tuple[int, int], ...]


class QwenVL(Family):
    """per_patch: entries of the geometry with a row for each patch, of which kept patches take theirs along."""

    rope = "mrope"
    per_patch: ClassVar[tuple[str, ...]] = ("position_ids",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.visual = model.model.visual
        self.text = model.model.language_model
        self.merge = self.visual.spatial_merge_size
        self.patches = self.merge**2

    def _info(self) -> ModelInfo:
        vision, text = self.model.config.vision_config, self.model.config.text_config
        projector = {name: parameter.detach() for name, parameter in self.visual.merger.named_parameters()}
        return ModelInfo(
            family=self.model_type,
            vit_layers=vision.depth,
            llm_layers=text.num_hidden_layers,
            vit_width=vision.hidden_size,
            llm_width=text.hidden_size,
            unit_patches=self.patches,
            rope=self.rope,
            projector=projector,
            projector_hash=weights_hash({**projector, "embed_tokens": self.text.embed_tokens.weight.detach()}),
            folder=self.model.config._name_or_path or None,
        )

    def inputs(self, processed: Mapping[str, Any]) -> Inputs:
        ids = single_prompt(processed)
        return self._laid_out(ids, processed["pixel_values"], processed["image_grid_thw"].cpu())

    def pictures(self, processed: Mapping[str, Any]) -> list[Picture]:
        grid_thw = processed["image_grid_thw"]
        patches = grid_thw.prod(1).tolist()
        parts = zip(patches, processed["pixel_values"].split(patches), grid_thw, strict=True)
        return [
            Picture(count // self.patches, {"pixel_values": pixels, "image_grid_thw": grid[None]})
            for count, pixels, grid in parts
        ]

    def _laid_out(self, host_ids: Tensor, pixels: Tensor, grid_thw: Tensor) -> Inputs:
        """The inputs of a prompt whose placeholders fit its images' grids."""
        grids = tuple((h // self.merge, w // self.merge) for _, h, w in grid_thw.tolist())
        counts = [rows * columns for rows, columns in grids]
        spans = image_spans(host_ids[0].tolist(), self.model.config.image_token_id, counts)
        types = torch.zeros_like(host_ids)
        for start, end in spans:
            types[:, start:end] = 1
        positions, _ = self.model.model.get_rope_index(host_ids, types, image_grid_thw=grid_thw)
        geometry = {
            "position_ids": get_vision_position_ids(grid_thw, self.merge),
            "image": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
            "unit": torch.cat([torch.arange(count) for count in counts]),
        }
        device = self.model.device
        return Inputs(
            prompt=Prompt(host_ids.to(device), positions[:, 0].to(device), spans),
            pixels=pixels.to(device),
            geometry={name: tensor.to(device) for name, tensor in geometry.items()} | self._geometry(grid_thw),
            question_ids=self._question(host_ids[0], spans[-1][1]).to(device),
            shape=self._shape(grids),
        )

    @abstractmethod
    def _geometry(self, grid_thw: Tensor) -> dict[str, Tensor]:
        """What this tower needs to know of images of these patches besides rotary positions, where it needs it."""

    def _shape(self, grids: Grids) -> Shape:
        vision = self.model.config.vision_config
        return Shape(
            grids,
            self.vit_layers,
            len(self.text.layers),
            self.patches,
            vit_head_width=vision.hidden_size // vision.num_heads,
            llm_head_width=self.text.layers[0].self_attn.head_dim,
            llm_heads=self.text.config.num_attention_heads,
        )

    def _question(self, ids: Tensor, after: int) -> Tensor:
        """Text of the user's last turn behind the last image: from the vision-end marker to the end-of-turn token.

        Where the image comes last, the text before it; where there is none, the end-of-turn token itself.
        """
        config = self.model.generation_config
        stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        markers = {self.model.config.vision_start_token_id, self.model.config.vision_end_token_id}
        markers.add(self.model.config.image_token_id)
        listed = ids.tolist()
        end = next((i for i in range(after, len(listed)) if listed[i] in stops), len(listed))
        question = [token for token in listed[after:end] if token not in markers]
        if not question:
            question = [token for token in listed[:after] if token not in markers and token not in stops]
        return torch.tensor(question or listed[-1:])

    def unit_pixels(self, inputs: Inputs, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        vision = self.visual.config
        side, m = vision.patch_size, self.merge
        patches = inputs.pixels.view(-1, m, m, 3, vision.temporal_patch_size, side, side)[:, :, :, :, 0]
        units = patches.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, m * side, m * side)  # (n, 3, u, u)
        scale, shift = (units.new_tensor(values).view(1, 3, 1, 1) for values in (std, mean))
        return (units * scale + shift).clamp(0, 1)

    def resized(self, inputs: Inputs, grids: Grids, mean: Sequence[float], std: Sequence[float]) -> Inputs:
        units = resampled(self.unit_pixels(inputs, mean, std), inputs.shape.grids, grids)
        scale, shift = (units.new_tensor(values).view(1, 3, 1, 1) for values in (std, mean))
        vision, m = self.visual.config, self.merge
        side, frames = vision.patch_size, vision.temporal_patch_size
        patches = ((units - shift) / scale).view(-1, 3, m, side, m, side).permute(0, 2, 4, 1, 3, 5)  # (n, m, m, 3, ...)
        pixels = patches[:, :, :, :, None].expand(-1, -1, -1, -1, frames, -1, -1).reshape(-1, inputs.pixels.shape[1])
        grid_thw = torch.tensor([[1, rows * m, columns * m] for rows, columns in grids])
        return self._laid_out(with_placeholders(inputs.prompt, grids).cpu(), pixels, grid_thw)

    def embed(self, inputs: Inputs, keep: Tensor | None) -> VisionState:
        geometry = dict(inputs.geometry)
        pixels, counts = inputs.pixels, list(inputs.shape.images)
        if keep is not None:
            patch = (keep[:, None] * self.patches + torch.arange(self.patches, device=keep.device)).flatten()
            pixels = pixels[patch]
            for name in self.per_patch:
                geometry[name] = geometry[name][patch]
            for name in ("image", "unit"):
                geometry[name] = geometry[name][keep]
            counts = count_by_image(geometry["image"], len(counts))
        hidden = self._placed(self.visual.patch_embed(pixels.to(self.visual.dtype)), geometry)  # (N, d)
        cos, sin = self.visual.rotary_pos_emb(hidden, geometry["position_ids"])
        segments = tuple(Segment(0, count, False) for count in counts)
        size = torch.ones(geometry["unit"].shape[0], device=hidden.device)
        return VisionState(hidden, cos, sin, segments, geometry["unit"], geometry["image"], size, self.patches)

    def _placed(self, hidden: Tensor, geometry: Mapping[str, Tensor]) -> Tensor:
        """Embedded patches with learned positions, where the tower has some."""
        return hidden

    def run_attention(self, number: int, state: VisionState) -> VisionState:
        block, lengths = self.visual.blocks[number], self.attention_lengths(number, state)
        # sdpa and eager split by `cu_seqlens.tolist()`: on the host it costs no wait
        where = state.hidden.device if "flash" in self.kernels[0] else "cpu"
        bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(where)
        biases = [bias[None] for bias in torch.cat(state.key_bias()).split(lengths)] if state.biased else None
        with TAP.biasing(block.attn, biases, self.kernels[0]) if biases else nullcontext():
            attended = block.attn(
                block.norm1(state.hidden),
                cu_seqlens=bounds,
                max_seqlen=max(lengths),
                position_embeddings=(state.cos, state.sin),
            )
        return replace(state, hidden=state.hidden + attended)

    def run_mlp(self, number: int, state: VisionState) -> VisionState:
        block = self.visual.blocks[number]
        return replace(state, hidden=state.hidden + block.mlp(block.norm2(state.hidden)))

    def vision_attention(self, number: int) -> nn.Module:
        return self.visual.blocks[number].attn

    @property
    def vit_layers(self) -> int:
        return len(self.visual.blocks)

    @property
    def kernels(self) -> tuple[str, str]:
        return self.visual.config._attn_implementation, self.text.config._attn_implementation

    @property
    def decoder(self) -> Decoder:
        return Decoder(
            layers=self.text.layers,
            kernel=self.kernels[1],
            rotary_at=lambda positions, like: self.text.rotary_emb(like, positions[:, None]),
            position_rows=3,
        )

    @staticmethod
    def _arguments(prompt: Prompt, outputs: Any) -> dict[str, Any]:
        """`forward_arguments`, given the model's own type of vision outputs."""
        order = torch.arange(prompt.length, device=prompt.positions.device)
        positions = torch.cat([order[None], prompt.positions])[:, None]  # (4, 1, T)
        return {
            "input_ids": prompt.input_ids,
            "attention_mask": torch.ones_like(prompt.input_ids),
            "position_ids": positions,
            "mm_encoder_outputs": {"image": outputs},
        }
