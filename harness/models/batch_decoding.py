"""Prompts of one batch: each prefilled alone, all decoded together.

Pruning leaves rows of other lengths in each layer, and methods look at one prompt at a time, so that a prompt's
prefill is that of a batch of one, to the bit. Its keys and values are then padded on the left, layer by layer, to the
longest of the batch; while decoding, hooks give each layer the mask (and where positions were renumbered, the rotary
tables) that belong to its own lengths. The prefill of a batch so takes the time of its prompts one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.modeling_outputs import CausalLMOutputWithPast

from harness.models.decoder import Decoder, Surgery
from harness.models.families.family import Family, Inputs, Picture
from harness.models.replacing import replaced
from harness.models.trace import Trace
from methods.base import PruningError

_REFUSED = ("output_attentions", "output_hidden_states")


@dataclass(frozen=True)
class Prefilled:
    """One prompt behind its prefill. arguments: input_ids, attention_mask and position_ids as the LLM got them;
    logits (1, t, V); states: keys and values (1, h, T of the layer, hd) of each layer."""

    arguments: dict[str, Tensor]
    logits: Tensor
    states: tuple[tuple[Tensor, Tensor], ...]
    surgery: Surgery
    trace: Trace

    def length(self, layer: int) -> int:
        return self.states[layer][0].shape[2]


@dataclass
class Together:
    """Rows of a batch for one call of `generate`."""

    model: nn.Module
    decoder: Decoder
    rows: Sequence[Prefilled]
    _bias: dict[int, Tensor | None] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Tokens of the longest shortened prompt."""
        return max(row.arguments["input_ids"].shape[1] for row in self.rows)

    @property
    def traces(self) -> tuple[Trace, ...]:
        return tuple(row.trace for row in self.rows)

    @property
    def logits(self) -> Tensor:
        """(rows, t, V), rows of fewer tokens padded with zeros on the left."""
        longest = max(row.logits.shape[1] for row in self.rows)
        return torch.cat([pad(row.logits, (0, 0, longest - row.logits.shape[1], 0)) for row in self.rows])

    @torch.no_grad()
    def generate(self, **arguments: Any) -> Any:
        """Native `generate` behind the prefills: its output, ids (rows, length + new tokens) padded on the left.

        Raises ValueError for arguments that a batch cannot honour, PruningError under flash attention.
        """
        for name in _REFUSED:
            if arguments.get(name):
                raise ValueError(f"{name} is not given for a batch inside a prune block; ask one prompt at a time")
        if "flash" in self.decoder.kernel:
            raise PruningError(f"a batch needs --attention sdpa or eager, not {self.decoder.kernel}")
        filler = self.model.generation_config.pad_token_id
        with self._installed(), replaced(self.model, "forward", self._forward()):
            return type(self.model).generate(
                self.model,
                **{**arguments, **self._padded("input_ids", 0 if filler is None else filler)},
                **self._padded("attention_mask", 0),
                **self._padded("position_ids", 0),
            )

    def _padded(self, name: str, value: int) -> dict[str, Tensor]:
        """An argument with a row for each prompt; the rows' dimension is the last but one."""
        given = [row.arguments[name] for row in self.rows]
        longest = self.length
        return {name: torch.cat([pad(one, (longest - one.shape[-1], 0), value=value) for one in given], dim=-2)}

    def _forward(self) -> Callable[..., Any]:
        native = type(self.model).forward

        @functools.wraps(native.__get__(self.model))  # `generate` reads the signature
        def forward(**arguments: Any) -> Any:
            cache = arguments.get("past_key_values")
            if cache is None:
                raise ValueError("a batch is decoded with a cache inside a prune block; leave use_cache=False out")
            if cache.get_seq_length():
                return native(self.model, **arguments)
            times = arguments["input_ids"].shape[0] // len(self.rows)  # beams and returned sequences
            for layer in range(len(self.decoder.layers)):
                keys, values = (self._stacked(layer, part).repeat_interleave(times, 0) for part in (0, 1))
                cache.update(keys, values, layer)
            return CausalLMOutputWithPast(logits=self.logits.repeat_interleave(times, 0), past_key_values=cache)

        return forward

    def _stacked(self, layer: int, part: int) -> Tensor:
        """Keys (part 0) or values (1) of a layer, (rows, h, longest, hd)."""
        longest = self._longest(layer)
        given = [row.states[layer][part] for row in self.rows]
        return torch.cat([pad(one, (0, 0, longest - one.shape[2], 0)) for one in given])

    def _longest(self, layer: int) -> int:
        return max(row.length(layer) for row in self.rows)

    @contextmanager
    def _installed(self) -> Iterator[None]:
        with ExitStack() as stack:
            for number, layer in enumerate(self.decoder.layers):
                handle = layer.register_forward_pre_hook(self._hook(number), with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def _hook(self, number: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            new = kwargs["past_key_values"].get_seq_length(number) - self._longest(number)  # tokens since the prefill
            changed = {
                "attention_mask": self._mask(number, new, hidden),
                "position_embeddings": self._tables(number, new, hidden, kwargs["position_embeddings"]),
                "position_ids": None,
            }
            return args, {**kwargs, **changed}

        return hook

    def _mask(self, number: int, new: int, hidden: Tensor) -> Tensor | None:
        """(B, 1, 1, keys) additive: padding is never seen, and keys of a size carry its logarithm."""
        assert hidden.shape[1] == 1, "a batch is decoded token by token"
        if number not in self._bias:
            self._bias[number] = self._bias_of_prompts(number, hidden)
        bias = self._bias[number]
        if bias is None:
            return None
        times = hidden.shape[0] // len(self.rows)
        return pad(bias, (0, new + 1)).repeat_interleave(times, 0)[:, None, None]

    def _bias_of_prompts(self, number: int, like: Tensor) -> Tensor | None:
        """(rows, longest) on the keys of the prompts; None where nothing is padded and no key has a size."""
        longest, rows = self._longest(number), []
        for row in self.rows:
            sequence, length = row.surgery.behind(number), row.length(number)
            sizes = None if sequence is None else sequence.log_size
            own = like.new_zeros(length) if sizes is None else sizes.to(like.dtype)
            rows.append(pad(own, (longest - length, 0), value=torch.finfo(like.dtype).min))
        bias = torch.stack(rows)
        return bias if bool(bias.any()) else None  # once a layer

    def _tables(self, number: int, new: int, like: Tensor, native: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Rotary tables (B, 1, head_dim) of the new token: a row that was renumbered here counts its own tokens."""
        sequences = [row.surgery.behind(number) for row in self.rows]
        renumbered = [sequence is not None and sequence.renumbered for sequence in sequences]
        if not any(renumbered):
            return native
        times = like.shape[0] // len(self.rows)
        numbers = torch.tensor([row.length(number) + new for row in self.rows], device=like.device)
        numbers = numbers.repeat_interleave(times).expand(self.decoder.position_rows, -1)  # (R, B)
        mine = torch.tensor(renumbered, device=like.device).repeat_interleave(times)[:, None, None]
        own = (table.transpose(0, 1) for table in self.decoder.rotary_at(numbers, like))  # (B, 1, head_dim)
        cos, sin = (torch.where(mine, ours, theirs) for ours, theirs in zip(own, native, strict=True))
        return cos, sin


# A processor puts the pictures of all rows of a batch one behind the other; which of them are a row's own follows from
# that row's placeholders.
def prompts_of(family: Family, processed: Mapping[str, Any]) -> list[Inputs]:
    """The prompts of a left-padded batch, their padding left out. Raises ValueError for what cannot be pruned."""
    if processed.get("pixel_values_videos") is not None:
        raise ValueError("pruning takes images, not videos")
    ids, mask = processed["input_ids"].cpu(), processed.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask.cpu()
    rows = [own[_padding(alive.bool(), row) :] for row, (own, alive) in enumerate(zip(ids, mask, strict=True))]
    placeholders = [int((row == family.model.config.image_token_id).sum()) for row in rows]
    shared = _shared(placeholders, family.pictures(processed))
    return [family.inputs({"input_ids": row[None], **_joined(own)}) for row, own in zip(rows, shared, strict=True)]


def _padding(alive: Tensor, row: int) -> int:
    """How many tokens of padding stand in front of a row."""
    padding = int((~alive).sum())
    if not bool(alive[padding:].all()):
        raise ValueError(f"prompt {row} of the batch is padded behind its text; set tokenizer.padding_side = 'left'")
    return padding


def _joined(pictures: list[Picture]) -> dict[str, Tensor]:
    return {name: torch.cat([picture.tensors[name] for picture in pictures]) for name in pictures[0].tensors}


def _shared(placeholders: list[int], pictures: list[Picture]) -> list[list[Picture]]:
    """The pictures of each row, in order."""
    left, shared = iter(pictures), []
    for row, wanted in enumerate(placeholders):
        if not wanted:
            raise ValueError(f"prompt {row} of the batch has no image; ask prompts of text alone apart from the others")
        own: list[Picture] = []
        while sum(picture.tokens for picture in own) < wanted:
            picture = next(left, None)
            if picture is None:
                raise ValueError(f"prompt {row} has {wanted} image placeholders, more than the images that are left")
            own.append(picture)
        found = sum(picture.tokens for picture in own)
        if found != wanted:
            raise ValueError(f"prompt {row} has {wanted} image placeholders, its images have {found} tokens")
        shared.append(own)
    if next(left, None) is not None:
        raise ValueError("the batch has more images than its prompts have placeholders for")
    return shared
