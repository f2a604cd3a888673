"""The training forward of model A: batched square images, several questions packed behind each.

It runs the native modules' own weights and agrees with the native forward
(tests/reference_training/test_reference_training.py), but processes images of one size as a batch, and lets every
question see the image and itself only: one sequence [vision_start, image, vision_end, question 1, question 2, ...]
with a block mask, positions starting anew at each question.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration

from harness.reference_training.architecture import MERGE, PATCH_PX

GAZE_LAYERS = (5, 9)
GAZE_HEADS = 2
WORDS = -1


@dataclass(frozen=True)
class Layout:
    """Constants of one (image side, questions, question length). Visual tables are in merge-unit order.

    taps (N, 4), tap_weights (N, 4): interpolation of learned positions; vision_cos, vision_sin (N, head_dim);
    text_cos, text_sin (T, head_dim); mask (T, T) additive; T = image tokens + 2 + questions * length.
    """

    image_tokens: int
    taps: Tensor
    tap_weights: Tensor
    vision_cos: Tensor
    vision_sin: Tensor
    text_cos: Tensor
    text_sin: Tensor
    mask: Tensor


def layout(model: Qwen3VLForConditionalGeneration, side_px: int, questions: int, length: int) -> Layout:
    """The constants for images of `side_px` and `questions` blocks of `length` tokens behind each."""
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

    visual = model.model.visual
    side = side_px // PATCH_PX
    grid = torch.tensor([[1, side, side]])
    taps, tap_weights = get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=MERGE,
        kwargs={},
    )
    vision_cos, vision_sin = visual.rotary_pos_emb(torch.zeros(1), get_vision_position_ids(grid, MERGE, kwargs={}))
    positions = _positions(side // MERGE, questions, length)  # (3, T)
    text_cos, text_sin = model.model.language_model.rotary_emb(torch.zeros(1), positions[:, None])
    n = (side // MERGE) ** 2
    return Layout(
        n, taps, tap_weights, vision_cos, vision_sin, text_cos[0], text_sin[0], _block_mask(n + 2, questions, length)
    )


def _positions(units: int, questions: int, length: int) -> Tensor:
    """Three-part rotary positions (3, T): vision_start, the image's grid, vision_end, then each question from the
    same number."""
    rows, columns = torch.meshgrid(torch.arange(units), torch.arange(units), indexing="ij")
    image = 1 + torch.stack([torch.zeros(units, units, dtype=torch.long), rows, columns]).reshape(3, -1)
    start, end = torch.zeros(3, 1, dtype=torch.long), torch.full((3, 1), units + 1)
    block = (units + 2 + torch.arange(length)).expand(3, -1)
    return torch.cat([start, image, end, block.repeat(1, questions)], dim=1)


def _block_mask(prefix: int, questions: int, length: int) -> Tensor:
    total = prefix + questions * length
    index = torch.arange(total)
    block = torch.where(index < prefix, torch.zeros_like(index), 1 + (index - prefix) // length)
    seen = (block[None] == 0) | (block[None] == block[:, None])
    allowed = seen & (index[None] <= index[:, None])
    return torch.zeros(total, total).masked_fill(~allowed, float("-inf"))


class PackedModel(nn.Module):
    """Batched images and packed questions through the weights of a native model."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        super().__init__()
        self.native = model

    def see(self, patches: Tensor, tables: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """patches (B, N, 768) in merge-unit order -> last ViT states (B, N, 160), tokens (B, n, 128), DeepStack (B,
        n, 128)."""
        visual = self.native.model.visual
        weight = visual.patch_embed.proj.weight.sum(2).flatten(1)  # (160, 768): a still image repeats its frame
        positions = (visual.pos_embed(tables.taps) * tables.tap_weights[..., None]).sum(1)
        states = F.linear(patches, weight, visual.patch_embed.proj.bias) + positions
        deep = None
        for index, block in enumerate(visual.blocks):
            states = states + _vision_attention(block.attn, block.norm1(states), tables)
            states = states + block.mlp(block.norm2(states))
            if index == visual.deepstack_visual_indexes[0]:
                deep = _merge(visual.deepstack_merger_list[0], states)
        return states, _merge(visual.merger, states), deep

    def answer(
        self, tokens: Tensor, deep: Tensor, questions: Tensor, tables: Layout, watched: dict[int, Tensor] | None = None
    ) -> Tensor:
        """tokens, deep (B, n, 128), questions (B, Q, length) ids -> logits (B, Q * length, vocabulary).

        Into `watched`, if given, goes layer -> log of the attention of question tokens over image tokens alone, of the
        first GAZE_HEADS heads of GAZE_LAYERS: (B, GAZE_HEADS, Q * length, n); and under WORDS the states of question
        tokens (B, Q * length, 128) that enter the first of these layers.
        """
        config, language = self.native.config, self.native.model.language_model
        n = tables.image_tokens
        marks = language.embed_tokens(
            torch.tensor([config.vision_start_token_id, config.vision_end_token_id]).to(questions.device)
        )
        start, end = marks[:, None].expand(2, len(questions), -1)[:, :, None].unbind(0)
        states = torch.cat([start, tokens, end, language.embed_tokens(questions.flatten(1))], dim=1)  # (B, T, 128)
        for index, layer in enumerate(language.layers):
            if watched is not None and index == GAZE_LAYERS[0]:
                watched[WORDS] = states[:, n + 2 :]
            mixed, query, key = _text_attention(layer.self_attn, layer.input_layernorm(states), tables)
            states = states + mixed
            if watched is not None and index in GAZE_LAYERS:
                watched[index] = _gaze(layer.self_attn, query, key, n)
            states = states + layer.mlp(layer.post_attention_layernorm(states))
            if index == 0:
                states = states + F.pad(deep, (0, 0, 1, states.shape[1] - n - 1))
        return self.native.lm_head(language.norm(states[:, n + 2 :]))


def _merge(merger: nn.Module, states: Tensor) -> Tensor:
    return merger(states.reshape(-1, states.shape[-1])).view(len(states), -1, merger.linear_fc2.out_features)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _mix(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention in float32 whatever autocast says: the CPU's bfloat16 backward of it takes more than twice the time."""
    with torch.autocast(query.device.type, enabled=False):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=mask)


def _vision_attention(attention: nn.Module, states: Tensor, tables: Layout) -> Tensor:
    batch, n, width = states.shape
    query, key, value = (
        attention.qkv(states).view(batch, n, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    )
    cos, sin = tables.vision_cos.to(query.dtype), tables.vision_sin.to(query.dtype)
    mixed = _mix(_turn(query, cos, sin), _turn(key, cos, sin), value, None)
    return attention.proj(mixed.transpose(1, 2).reshape(batch, n, width))


def _gaze(attention: nn.Module, query: Tensor, key: Tensor, n: int) -> Tensor:
    scores = query[:, :GAZE_HEADS, n + 2 :] @ key[:, :GAZE_HEADS, 1 : n + 1].transpose(
        2, 3
    )  # (B, heads, Q * length, n)
    return (scores.float() * attention.scaling).log_softmax(-1)


def _text_attention(attention: nn.Module, states: Tensor, tables: Layout) -> tuple[Tensor, Tensor, Tensor]:
    batch, total, _ = states.shape
    shape = (batch, total, -1, attention.head_dim)
    query = attention.q_norm(attention.q_proj(states).view(shape)).transpose(1, 2)
    key = attention.k_norm(attention.k_proj(states).view(shape)).transpose(1, 2)
    value = attention.v_proj(states).view(shape).transpose(1, 2)
    cos, sin = tables.text_cos.to(query.dtype), tables.text_sin.to(query.dtype)
    query, key = _turn(query, cos, sin), _turn(key, cos, sin)
    groups = attention.num_key_value_groups
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    mixed = _mix(query, key, value, tables.mask)
    return attention.o_proj(mixed.transpose(1, 2).reshape(batch, total, -1)), query, key
