"""A published model at its real size with seeded random weights: nothing is downloaded.

Latency, memory and FLOPs depend on shapes and kernels, not on what the weights say; accuracy does, and is not offered.
Filling must be fast, so one block of normal numbers is laid over all matrices again and again. Its length is a prime,
so that the rows of a matrix differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig

from harness.models.catalogue import CatalogueEntry
from harness.models.families.family import Family
from harness.models.families.registry import family_class
from harness.models.loading import DTYPES, OpenModel, device_and_dtype
from harness.models.processors import processor_of
from harness.records.records import digest

BLOCK = 1_048_573  # a prime
DEVIATION = 0.02
_DRAWS = {
    getattr(Tensor, name) for name in ("normal_", "uniform_", "trunc_normal_", "bernoulli_") if hasattr(Tensor, name)
}


class _NoDraws(TorchFunctionMode):
    """Within it, filling a tensor at random leaves it as it is: initialising billions of values takes minutes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        return args[0] if func in _DRAWS else func(*args, **(kwargs or {}))


REVISION = "random_weights"  # begins the revision of every such model


def open_random(
    entry: CatalogueEntry,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    attention: str = "sdpa",
    image_backend: str = "pil",
    seed: int = 0,
) -> OpenModel:
    """A published model ready to run on prompts of the real shapes; its answers mean nothing.

    Raises UsageError for a family without an adapter, and what `device_and_dtype` raises.
    """
    target = device_and_dtype(device, dtype)
    adapter = adapter_of(entry)
    family = adapter(build(entry, DTYPES[dtype], target, attention, seed))
    processor = processor_of(entry, image_backend)
    family.read_template(processor)
    return OpenModel(
        entry.name, f"{REVISION}:{seed}:{digest(entry.config)}", family.model, processor, family, dtype, device,
        attention, image_backend,
    )  # fmt: skip


def adapter_of(entry: CatalogueEntry) -> type[Family]:
    """The adapter of an entry's family. Raises UsageError where there is none."""
    return family_class(entry.family, entry.name)


def config_of(entry: CatalogueEntry) -> PretrainedConfig:
    """The configuration of a catalogue entry."""
    fields = dict(entry.config)
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


def on_meta(entry: CatalogueEntry, attention: str = "sdpa") -> nn.Module:
    """The model without memory: shapes only, in seconds."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config_of(entry), attn_implementation=attention)
    return model.eval()


def build(entry: CatalogueEntry, dtype: torch.dtype, device: torch.device, attention: str, seed: int = 0) -> nn.Module:
    """The model with random weights on `device`, in eval mode; equal seeds and dtypes give equal weights."""
    with torch.device(device), _NoDraws():
        model = AutoModelForImageTextToText.from_config(config_of(entry), dtype=dtype, attn_implementation=attention)
    fill(model, seed)
    return model.eval()


@torch.no_grad()
def fill(model: nn.Module, seed: int) -> None:
    """Random matrices, norms of 1, biases of 0. Every parameter is set: none is left as memory was found."""
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(seed)) * DEVIATION
    offset = 0
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                parameter.zero_()
            elif name == "weight" and "norm" in type(module).__name__.lower():
                parameter.fill_(1.0)
            else:
                offset = _lay(block.to(parameter.device, parameter.dtype), parameter.view(-1), offset)


def _lay(block: Tensor, flat: Tensor, offset: int) -> int:
    """Fill `flat` from the block, round and round, beginning at `offset`; where the next one begins."""
    done = 0
    while done < flat.numel():
        count = min(BLOCK - offset, flat.numel() - done)
        flat[done : done + count] = block[offset : offset + count]
        done, offset = done + count, (offset + count) % BLOCK
    return offset
