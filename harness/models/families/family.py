"""What the engine asks of a model family. One file a family implements it with the model's own sub-modules."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.models.attention import Capture
from harness.models.decoder import Decoder
from harness.models.prompt import Prompt, VisualRows
from harness.models.signals import vit_signal
from harness.models.vision_state import VisionState
from harness.records.records import PromptText
from methods.base import ModelInfo, Shape, Signal


@dataclass(frozen=True)
class Inputs:
    """One prompt, ready for the device. geometry: the family's index tensors, made on the host from image sizes.

    pixels: as the processor gives them; question_ids (q,): the user's text without template tokens.
    """

    prompt: Prompt
    pixels: Tensor
    geometry: Mapping[str, Tensor]
    question_ids: Tensor
    shape: Shape

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", replace(self.shape, text_tokens=self.text_tokens))

    @property
    def text_tokens(self) -> int:
        return self.prompt.length - self.shape.n

    @property
    def text(self) -> PromptText:
        return PromptText(self.text_tokens, self.text_tokens - self.prompt.spans[0][0], self.question_ids.shape[0])


@dataclass(frozen=True)
class Picture:
    """One picture of a processed batch. tokens: its placeholders; tensors: its part of what the processor gives."""

    tokens: int
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Slots:
    """Visual tokens of which some come from no ViT token. source (n,): the row of `VisionState.rows()`, -1 = none."""

    rows: VisualRows
    source: Tensor


@dataclass(frozen=True)
class Features:
    """What the interface hands to the LLM, rows in prompt order. tokens (n, d); deepstack: one (n, d) a level;
    pre_projector (n, g, d_vit): what went into the projector. slots: where not every row is one of the ViT."""

    tokens: Tensor
    deepstack: tuple[Tensor, ...]
    pre_projector: Tensor
    slots: Slots | None = None


class Family(ABC):
    """One model of one family. `model` is the native transformers model, never changed."""

    model_type: ClassVar[str]
    rope: ClassVar[str]  # "1d" | "mrope"

    def __init__(self, model: nn.Module):
        self.model = model

    def read_template(self, processor: Any) -> None:  # noqa: B027
        """Learn where the user's text begins and ends, if token ids alone do not say it in this family."""

    @cached_property
    def info(self) -> ModelInfo:
        """What methods may know of the model, read once: the frozen weights are hashed."""
        return self._info()

    @abstractmethod
    def _info(self) -> ModelInfo: ...

    @abstractmethod
    def inputs(self, processed: Mapping[str, Any]) -> Inputs:
        """One processed prompt (batch 1) on the model's device. Raises ValueError for what it cannot take."""

    @abstractmethod
    def pictures(self, processed: Mapping[str, Any]) -> list[Picture]:
        """All pictures of a processed batch, in order."""

    @abstractmethod
    def unit_pixels(self, inputs: Inputs, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Pixels in [0, 1] of every unit, (n, 3, u, u), the processor's normalisation undone."""

    @abstractmethod
    def resized(
        self, inputs: Inputs, grids: tuple[tuple[int, int], ...], mean: Sequence[float], std: Sequence[float]
    ) -> Inputs:
        """The same prompt with each image resampled to rows x columns of units, and the placeholders for them.

        harness/models/families/resizing.py has the resampling. Towers of one resolution interpolate their positions.
        """

    @abstractmethod
    def embed(self, inputs: Inputs, keep: Tensor | None) -> VisionState:
        """Embedded patches with positions, of all units or of those that `keep` (k,) names; prefix tokens (CLS) too."""

    @abstractmethod
    def run_attention(self, number: int, state: VisionState) -> VisionState:
        """The state after the attention of a ViT block and its residual sum, before its MLP.

        Where `state.biased`, the keys carry `state.key_bias()`: `TAP.biasing(module, biases, kernel)` puts it there.
        """

    def attention_lengths(self, number: int, state: VisionState) -> tuple[int, ...]:
        """Tokens of each sequence that attends to itself in a ViT block, as they stand packed: images, or windows."""
        return state.lengths

    @abstractmethod
    def run_mlp(self, number: int, state: VisionState) -> VisionState:
        """The state after the MLP of a ViT block and its residual sum; DeepStack taps are taken here."""

    @abstractmethod
    def vision_attention(self, number: int) -> nn.Module:
        """The attention module of a ViT block, for watching."""

    def vision_signal(self, signal: Signal, state: VisionState, captures: list[Capture]) -> Tensor:
        """A ViT signal over the rows of `state` from the captures of the attention that has just run over them.

        Families whose blocks do not attend image by image (windows) override it; rows are given in the prompt's order.
        """
        return vit_signal(signal, state, captures)

    @abstractmethod
    def project(self, state: VisionState) -> Features:
        """Projector (and DeepStack mergers) over the survivors, aggregates last in their image."""

    @property
    @abstractmethod
    def vit_layers(self) -> int: ...

    @property
    @abstractmethod
    def decoder(self) -> Decoder: ...

    @property
    @abstractmethod
    def kernels(self) -> tuple[str, str]:
        """The attention implementations of the ViT and of the LLM."""

    @abstractmethod
    def forward_arguments(self, prompt: Prompt, features: Features, counts: tuple[int, ...]) -> dict[str, Any]:
        """Keyword arguments for the native `forward` or `generate` on the shortened prompt: public API only."""

    @abstractmethod
    def deepstack_hook(self) -> tuple[nn.Module, str] | None:
        """Module and method name that add DeepStack features inside the LLM, None where there are none."""


def single_prompt(processed: Mapping[str, Any]) -> Tensor:
    """input_ids (1, T) of one prompt of text and images, on the host. Raises ValueError for anything else."""
    ids, mask = processed["input_ids"], processed.get("attention_mask")
    if ids.shape[0] != 1:
        raise ValueError(f"one prompt was expected, got a batch of {ids.shape[0]}; take it apart with `prompts_of`")
    if mask is not None and not bool(mask.bool().all()):
        raise ValueError("the prompt is padded; pass it alone, without padding")
    if processed.get("pixel_values_videos") is not None:
        raise ValueError("pruning takes images, not videos")
    return ids.cpu()


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and float32 values: the same for every dtype that holds the same numbers; "" without memory."""
    if any(tensor.is_meta for tensor in tensors.values()):
        return ""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return total.hexdigest()
