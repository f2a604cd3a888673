"""Opening a model by name: the embedded one, a local folder in the hub's format, or a hub id.

`open_model` gives an `OpenModel`: the native transformers model in eval mode, its processor, and the family adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText

from harness.models.clip import open_clip
from harness.models.engine import Engine
from harness.models.families.family import Family, Inputs
from harness.models.families.registry import family_class
from harness.models.processors import load_processor
from harness.models.registry import parted, resolve
from harness.records.errors import (
    CorruptCheckpoint,
    DeviceUnavailable,
    ModelUnavailable,
    UsageError,
)
from methods.base import Pruner

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class WrongAdapter(CorruptCheckpoint):
    """An adapter that was trained on another base model."""


@dataclass(frozen=True)
class OpenModel:
    """A model ready to run. revision: sha256 of a local folder's config and weights, or the hub's commit."""

    name: str
    revision: str
    model: nn.Module
    processor: Any
    family: Family
    dtype: str
    device: str
    attention: str
    image_backend: str

    is_timed: ClassVar[bool] = True  # False where somebody else's class prepares what it answers

    def processed(self, images: Sequence[Image.Image], question: str, answer: str = "") -> Any:
        """What the processor gives for one user turn, images first; `answer` is put behind it, end of turn included."""
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": question}]
        turn = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        text = turn + answer + self.processor.tokenizer.eos_token if answer else turn
        return self.processor(images=list(images), text=[text], return_tensors="pt")

    def prepare(self, images: Sequence[Image.Image], question: str) -> Inputs:
        """One user turn as the engine takes it: tensors on the device."""
        return self.family.inputs(self.processed(images, question))

    def prepare_answered(self, images: Sequence[Image.Image], question: str, answer: str) -> tuple[Inputs, Tensor]:
        """The same turn followed by its answer and the end-of-turn token, and the ids of those, (A,)."""
        inputs = self.family.inputs(self.processed(images, question, answer))
        asked = self.processed(images, question)["input_ids"].shape[1]
        return inputs, inputs.prompt.input_ids[0, asked:]

    def engine(self, pruner: Pruner | None) -> Engine:
        """The engine of one pruner (None: unpruned) on this model, its trained adapter loaded and checked."""
        return build_engine(self.family, pruner, self.processor)

    def adapter_revision(self, pruner: Pruner | None) -> str:
        """sha256 of the adapter (or CLIP model) that the pruner's engine gets, "" for none: answers depend on it."""
        if pruner is not None and pruner.clip:
            return _revision(pruner.clip, self.model)
        path = adapter_file(self.family, pruner)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""

    def decode(self, tokens: Tensor) -> str:
        """The text of generated token ids (t,), special tokens left out."""
        return self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def build_engine(family: Family, pruner: Pruner | None, processor: Any = None) -> Engine:
    """An engine, with the trained adapter that the pruner wants if it lies beside the weights.

    processor: says how pixels were normalised, and reads the question for a CLIP model; None = mean and deviation 0.5,
    no CLIP model. Raises WrongAdapter, CorruptCheckpoint.
    """
    path = adapter_file(family, pruner)
    adapter = load_adapter(path, family.info.projector_hash) if path else None
    if processor is None:
        return Engine(family, pruner, adapter)
    family.read_template(processor)
    normal, clip = processor.image_processor, None
    if pruner is not None and pruner.clip:
        read = partial(processor.tokenizer.decode, skip_special_tokens=True)
        clip = open_clip(pruner.clip, family.model.device, read)
    return Engine(family, pruner, adapter, tuple(normal.image_mean), tuple(normal.image_std), clip)


def adapter_file(family: Family, pruner: Pruner | None) -> Path | None:
    """`METHOD.safetensors` in the model's folder, None where there is none or the pruner wants none."""
    if pruner is None or not pruner.wants_adapter or family.info.folder is None:
        return None
    path = Path(family.info.folder) / f"{pruner.name}.safetensors"
    return path if path.is_file() else None


def family_of(model: nn.Module) -> Family:
    """The adapter of a native model. Raises UsageError for other families."""
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    return family_class(kind)(model)


def load_adapter(path: Path, projector_hash: str) -> dict[str, Tensor]:
    """An adapter's tensors. Raises WrongAdapter unless it was trained on the model with this projector."""
    try:
        with safe_open(path, framework="pt") as opened:
            base = (opened.metadata() or {}).get("base_projector_hash", "")
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CorruptCheckpoint(f"{path} is no readable safetensors file ({error}); train the adapter again") from error
    if base != projector_hash:
        raise WrongAdapter(
            f"{path} was trained on another base model ({base[:12] or 'unnamed'}, this one is {projector_hash[:12]}); "
            "run `harness train-adapter` on this model"
        )
    return tensors


def open_model(
    name: str | Path,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    attention: str = "sdpa",
    image_backend: str = "pil",
) -> OpenModel:
    """The model behind a name. Raises UnknownModel, ModelUnavailable, CorruptCheckpoint, DeviceUnavailable."""
    source, revision = parted(resolve(name))
    target = device_and_dtype(device, dtype)
    kind = model_type(source, revision)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            source, revision=revision, dtype=DTYPES[dtype], attn_implementation=attention, use_safetensors=True,
            trust_remote_code=False,
        )  # fmt: skip
        processor = load_processor(source, backend=image_backend, revision=revision)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and not Path(source).is_dir():
            raise _unavailable(source, revision) from error
        raise CorruptCheckpoint(
            f"cannot load {name}: {str(error).splitlines()[0]}; is the folder complete (config, weights, tokenizer)?"
        ) from error
    model = model.to(target).eval()
    family = family_class(kind)(model)
    family.read_template(processor)
    return OpenModel(
        str(name), _revision(source, model), model, processor, family, dtype, device, attention,
        image_backend,
    )  # fmt: skip


def adopt(name: str, model: nn.Module, processor: Any, image_backend: str) -> OpenModel:
    """A model that somebody else has loaded, `name` being what they loaded. Raises UsageError, UnknownModel."""
    family = family_of(model)
    family.read_template(processor)
    dtype, attention = str(model.dtype).removeprefix("torch."), model.config._attn_implementation
    revision = _revision(parted(resolve(name))[0], model)
    return OpenModel(name, revision, model, processor, family, dtype, model.device.type, attention, image_backend)


def device_and_dtype(device: str, dtype: str) -> torch.device:
    """The device, once it has held a tensor. Raises DeviceUnavailable, and UsageError for an unknown dtype."""
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise DeviceUnavailable(
            f"no device {device!r} here ({str(error).splitlines()[0]}); try --device cpu"
        ) from error
    if dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
    return target


def model_type(source: str, revision: str = "main") -> str:
    """The family of a model, read from its config alone. Raises ModelUnavailable, CorruptCheckpoint, UsageError."""
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        if Path(source).is_dir():
            raise CorruptCheckpoint(f"{source} has no readable config.json: {str(error).splitlines()[0]}") from error
        raise _unavailable(source, revision) from error
    family_class(config.model_type, source)
    return config.model_type


def _unavailable(source: str, revision: str) -> ModelUnavailable:
    words = source if revision == "main" else f"{source} --revision {revision}"
    return ModelUnavailable(
        f"{source} is not in the local cache and the hub did not give it; fetch it where there is a network with "
        f"`hf download {words}` (log in first with `hf auth login` if it is gated)"
    )


def _revision(source: str, model: nn.Module) -> str:
    """sha256 of config and weights of a folder; the commit of a hub model."""
    folder = Path(source)
    if not folder.is_dir():
        return model.config._commit_hash or "unknown"
    total = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("model*.safetensors")]):
        total.update(path.name.encode())
        total.update(path.read_bytes())
    return total.hexdigest()
