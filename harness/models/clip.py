"""A CLIP model beside the one that is pruned: its embeddings of the picture's units and of the question, as signals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from harness.records.errors import CorruptCheckpoint
from methods.base import MissingSignal, Signal

if TYPE_CHECKING:
    from harness.models.deciding import Pass
    from harness.models.families.family import Inputs

CLIP = "clip"  # Signal.tower


@dataclass(frozen=True)
class Clip:
    """A CLIP model, its tokenizer and pixel normalisation. decode: the text of the pruned model's token ids (q,)."""

    model: CLIPModel
    tokenizer: Callable[..., Mapping[str, list[int]]]
    mean: Tensor
    std: Tensor
    decode: Callable[[Tensor], str]

    def patches(self, units: Tensor, grid: tuple[int, int], spend: Callable[[int], None]) -> Tensor:
        """Embeddings of one image's units, (n, e). units: (n, 3, u, u) in [0, 1], raster order of `grid`.

        The picture is resized to CLIP's square; where CLIP's patches are no units, their embeddings are interpolated.
        """
        (rows, columns), (_, colours, side, _) = grid, units.shape
        picture = units.view(rows, columns, colours, side, side).permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2)
        vision = self.model.vision_model
        size = vision.config.image_size
        if picture.shape[1:] != (size, size):
            picture = _resized(picture.float(), (size, size), "bicubic").clamp(0, 1)
        states = vision(((picture.float() - self.mean) / self.std)[None], output_hidden_states=True).hidden_states[-2]
        embedded = self.model.visual_projection(vision.post_layernorm(states[0, 1:]))  # (p * p, e), without CLS
        patches = size // vision.config.patch_size
        spend(self._vision_flops(patches**2, colours))
        if (rows, columns) == (patches, patches):
            return embedded
        return _resized(embedded.T.unflatten(1, (patches, patches)), grid, "bilinear").flatten(1).T

    def segments(self, question: Tensor, spend: Callable[[int], None]) -> Tensor:
        """Embeddings of the question, cut where CLIP's text ends, (segments, e). question: ids (q,)."""
        ids = self.tokenizer(self.decode(question), add_special_tokens=False)["input_ids"]
        text = self.model.text_model
        room = text.config.max_position_embeddings - 2
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        pooled = []
        for first in range(0, max(1, len(ids)), room):
            segment = torch.tensor([[start, *ids[first : first + room], end]], device=self.mean.device)
            pooled.append(text(input_ids=segment).pooler_output[0])
            spend(_tower_flops(text.config, segment.shape[1]))
        embedded = self.model.text_projection(torch.stack(pooled))
        spend(2 * len(pooled) * self.model.text_projection.weight.numel())
        return embedded

    def _vision_flops(self, patches: int, colours: int) -> int:
        vision = self.model.vision_model.config
        embedding = 2 * patches * colours * vision.patch_size**2 * vision.hidden_size
        projection = 2 * patches * self.model.visual_projection.weight.numel()
        return embedding + _tower_flops(vision, patches + 1) + projection


def open_clip(folder: str, device: torch.device, decode: Callable[[Tensor], str]) -> Clip:
    """The CLIP model (transformers' format, with its tokenizer) in a folder. Raises CorruptCheckpoint."""
    try:
        model = CLIPModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise CorruptCheckpoint(
            f"no CLIP model in {folder!r}: {str(error).splitlines()[0]}; clip_folder is a local folder with a "
            "CLIPModel's config, weights (safetensors) and tokenizer"
        ) from error
    given = Path(folder) / "preprocessor_config.json"
    normal = json.loads(given.read_text()) if given.is_file() else {}
    mean, std = (
        torch.tensor(normal.get(name, default), device=device).view(3, 1, 1)
        for name, default in (("image_mean", OPENAI_CLIP_MEAN), ("image_std", OPENAI_CLIP_STD))
    )
    frozen: nn.Module = model.to(device).eval().requires_grad_(False)
    return Clip(frozen, tokenizer, mean, std, decode)


def clip_signal(run: Pass, need: Signal, inputs: Inputs) -> Tensor:
    """Embeddings of the question, or of all units of the prompt as they came from the processor.

    Of all: the picture is looked at as a whole, whatever the ViT has already lost of it. Raises MissingSignal.
    """
    if run.clip is None:
        raise MissingSignal(
            "no CLIP model is open: set clip_folder to a local folder that holds one, and give harness.prune the "
            "processor, which reads the question"
        )
    if need.kind == "text":
        return run.clip.segments(inputs.question_ids, run.trace.spend)
    if inputs.shape.tiles:
        raise MissingSignal("a CLIP model is not shown the tiles of an image; use relevance=question")
    units = run.family.unit_pixels(inputs, run.pixel_mean, run.pixel_std)
    images = zip(units.split(inputs.shape.images), inputs.shape.grids, strict=True)
    return torch.cat([run.clip.patches(rows, grid, run.trace.spend) for rows, grid in images])


def _resized(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """(c, h, w) -> (c, *size)."""
    return nn.functional.interpolate(x[None], size=size, mode=mode, antialias=True, align_corners=False)[0]


def _tower_flops(config, tokens: int) -> int:
    """FLOPs of the blocks of a CLIP tower."""
    width, mlp = config.hidden_size, config.intermediate_size
    block = tokens * (4 * width**2 + 2 * width * mlp) + 2 * tokens**2 * width
    return 2 * config.num_hidden_layers * block
