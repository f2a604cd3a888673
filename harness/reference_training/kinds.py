"""The two reference models: how each is made, run in training, laid out and saved."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedModel, Qwen3VLForConditionalGeneration

from harness.reference_training.architecture import new_model
from harness.reference_training.architecture_b import new_model_b
from harness.reference_training.packed import PackedModel, layout
from harness.reference_training.packed_b import PackedModelB, layout_b
from harness.reference_training.vocabulary import save_processor, save_processor_b


@dataclass(frozen=True)
class Kind:
    """native: the class of transformers; new(seed, folder to start from or None); packed(model): the training forward;
    layout(model, side in pixels, questions, length): its constants; most_bytes: of the exported weights."""

    native: type[PreTrainedModel]
    new: Callable[[int, Path | None], PreTrainedModel]
    packed: Callable[[Any], nn.Module]
    layout: Callable[[Any, int, int, int], Any]
    save_processor: Callable[[Path], None]
    most_bytes: int


def _new_a(seed: int, start: Path | None) -> PreTrainedModel:
    if start is not None:
        raise ValueError("model A starts from nothing; leave out --start-from")
    return new_model(seed)


def _new_b(seed: int, start: Path | None) -> PreTrainedModel:
    if start is None:
        return new_model_b(seed)
    return new_model_b(seed, Qwen3VLForConditionalGeneration.from_pretrained(start, use_safetensors=True).float())


KINDS = {
    "a": Kind(Qwen3VLForConditionalGeneration, _new_a, PackedModel, layout, save_processor, 15_000_000),
    "b": Kind(LlavaForConditionalGeneration, _new_b, PackedModelB, layout_b, save_processor_b, 11_000_000),
}


def kind_of(folder: Path) -> Kind:
    """The kind of a saved reference model. Raises ValueError for any other model."""
    saved = json.loads((folder / "config.json").read_text())["model_type"]
    for kind in KINDS.values():
        if kind.native.config_class.model_type == saved:
            return kind
    raise ValueError(f"{folder} holds a {saved}, which is no reference model")
