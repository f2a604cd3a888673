"""Writes the reference model as a folder in the hub's format, each file replaced in one move."""

import os
import tempfile
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel

from harness.reference_training.kinds import KINDS


def export(state: dict[str, torch.Tensor], folder: Path, kind: str = "a") -> None:
    """Save the weights `state` (float32) as float16 safetensors with configuration, processor and chat template.

    float16 keeps three more bits of mantissa than bfloat16. kind: which reference model. Raises ValueError where a
    weight leaves float16's range or the file exceeds the kind's limit.
    """
    model = KINDS[kind].new(0, None)
    model.load_state_dict(state)
    largest = max(tensor.abs().max().item() for tensor in state.values())
    if not largest < 60000:
        raise ValueError(f"largest weight {largest} leaves float16's range; train with more weight decay")
    _generation(model)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        model.half().save_pretrained(scratch)
        KINDS[kind].save_processor(Path(scratch))
        size = (Path(scratch) / "model.safetensors").stat().st_size
        if size > KINDS[kind].most_bytes:
            raise ValueError(f"model.safetensors has {size} bytes, at most {KINDS[kind].most_bytes} are allowed")
        for path in sorted(Path(scratch).iterdir()):
            path.chmod(0o644)
            os.replace(path, folder / path.name)


def _generation(model: PreTrainedModel) -> None:
    text = model.config.text_config
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=8, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
    )
