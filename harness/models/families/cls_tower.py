"""What InternVL and the LLaVAs share: images of one size through a tower with CLS and learned positions, 1-d RoPE.

A family says what its units are made of (`_unit_rows`, `_units`, `_geometry`) and how its blocks run. Towers of one
resolution interpolate their positions where an image was resampled. Apache-2.0 upstream, nothing copied.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from harness.models.decoder import Decoder
from harness.models.families.family import Family, Features, Inputs, Picture, single_prompt, weights_hash
from harness.models.families.resizing import Grid, cut, resampled
from harness.models.prompt import Prompt, image_spans, with_placeholders
from harness.models.vision_state import Segment, VisionState, count_by_image
from methods.base import ModelInfo, Shape

PROBES = ("Red.", "7 of them?")  # texts that share no token at either end


@dataclass(frozen=True)
class TemplateTurn:
    """Token ids behind the image before the user's text, and those behind the text ("ASSISTANT:")."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def question(self, ids: Sequence[int], image_start: int, image_end: int, stops: Sequence[int]) -> list[int]:
        """The user's text behind the images, which take up ids[image_start:image_end].

        It ends at the template's words or, where these are not known, at the first of `stops`. Without text behind
        the images, what stands before them; without that, the last token.
        """
        behind = list(ids[image_end:])
        end = _first(behind, self.after) if self.after else None
        if end is None:
            end = next((place for place, token in enumerate(behind) if token in stops), len(behind))
        start = len(self.before) if tuple(behind[: len(self.before)]) == self.before else 0
        before = [token for token in ids[:image_start] if token not in stops]
        return behind[start:end] or before or list(ids[-1:])


def turn_of(processor: Any) -> TemplateTurn:
    """What the processor's template says, found by filling it in twice. Nothing where it has no template."""
    if not getattr(processor, "chat_template", None):
        return TemplateTurn()
    image = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    one, other = (_behind_image(processor, image, probe) for probe in PROBES)
    return TemplateTurn(_common(one, other), _common(one[::-1], other[::-1])[::-1])


def _behind_image(processor: Any, image: int, text: str) -> list[int]:
    content = [{"type": "image"}, {"type": "text", "text": text}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    ids = processor.tokenizer(prompt)["input_ids"]
    return ids[ids.index(image) + 1 :]


def _common(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """The beginning that two sequences share."""
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return tuple(one[:length])


def _first(ids: list[int], wanted: tuple[int, ...]) -> int | None:
    """Where `wanted` begins in `ids`."""
    places = range(len(ids) - len(wanted) + 1)
    return next((place for place in places if tuple(ids[place : place + len(wanted)]) == wanted), None)


Grids = tuple[Grid, ...]


class ClsTower(Family):
    """A family sets `tower`, `blocks`, `unit_px` and `unit_patches` when it is made."""

    rope = "1d"
    tower: nn.Module
    blocks: Sequence[nn.Module]
    unit_px: int
    unit_patches: int

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.text = model.model.language_model
        self.projector = model.model.multi_modal_projector
        self.turn = TemplateTurn()

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
            unit_patches=self.unit_patches,
            rope=self.rope,
            projector=projector,
            projector_hash=weights_hash({**projector, "embed_tokens": self.text.embed_tokens.weight.detach()}),
            folder=self.model.config._name_or_path or None,
        )

    def inputs(self, processed: Mapping[str, Any]) -> Inputs:
        ids, pixels = single_prompt(processed), processed["pixel_values"]
        return self._laid_out(ids, pixels, (self._grid(pixels),) * pixels.shape[0])

    def pictures(self, processed: Mapping[str, Any]) -> list[Picture]:
        pixels = processed["pixel_values"]
        rows, columns = self._grid(pixels)
        return [Picture(rows * columns, {"pixel_values": one[None]}) for one in pixels]

    def _grid(self, pixels: Tensor) -> Grid:
        height, width = pixels.shape[-2:]
        return height // self.unit_px, width // self.unit_px

    def _laid_out(self, host_ids: Tensor, pixels: Tensor, grids: Grids) -> Inputs:
        """The inputs of a prompt whose placeholders fit its images' grids."""
        counts = [rows * columns for rows, columns in grids]
        spans = image_spans(host_ids[0].tolist(), self.model.config.image_token_id, counts)
        device = self.model.device
        return Inputs(
            prompt=Prompt(host_ids.to(device), torch.arange(host_ids.shape[1], device=device)[None], spans),
            pixels=pixels.to(device),
            geometry={name: tensor.to(device) for name, tensor in self._geometry(grids).items()},
            question_ids=self._question(host_ids[0], spans[0][0], spans[-1][1]).to(device),
            shape=self._shape(grids),
        )

    def _geometry(self, grids: Grids) -> dict[str, Tensor]:
        counts = [rows * columns for rows, columns in grids]
        return {
            "image": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
            "unit": torch.cat([torch.arange(count) for count in counts]),
        }

    def _shape(self, grids: Grids) -> Shape:
        vision = self.model.config.vision_config
        return Shape(
            grids,
            self.vit_layers,
            len(self.text.layers),
            unit_patches=self.unit_patches,
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
        """Pixels of every unit as the tower takes them, (n, 3, u, u)."""
        if inputs.pixels.shape[-1] == self.unit_px:
            return inputs.pixels
        rows, columns = inputs.shape.grids[0]
        pixels = inputs.pixels[..., : rows * self.unit_px, : columns * self.unit_px]
        return torch.cat([cut(image, self.unit_px) for image in pixels])

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
        if keep is not None:
            image, unit = image[keep], unit[keep]
            counts = count_by_image(image, len(counts))
        rows = self._unit_rows(inputs, keep)  # (n, g, d)
        segments = tuple(Segment(0, count, False, prefix=1) for count in counts)
        size = torch.ones(unit.shape[0], device=unit.device)
        state = VisionState(rows, None, None, segments, unit, image, size, self.unit_patches)
        hidden = state.join([self._cls()] * len(counts), rows, [None] * len(counts))
        return replace(state, hidden=self._normed(hidden))

    @abstractmethod
    def _unit_rows(self, inputs: Inputs, keep: Tensor | None) -> Tensor:
        """Embedded patches with their positions, (n, g, d), of all units or of those that `keep` names."""

    @abstractmethod
    def _cls(self) -> Tensor:
        """CLS with its position, (1, d)."""

    def _normed(self, hidden: Tensor) -> Tensor:
        """What stands between embeddings and blocks."""
        return hidden

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
            "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=self._pooled(features, counts))},
        }

    def _pooled(self, features: Features, counts: tuple[int, ...]) -> Any:
        """Visual tokens as the native `get_image_features` gives them."""
        return features.tokens.split(counts)

    def deepstack_hook(self) -> None:
        return None
