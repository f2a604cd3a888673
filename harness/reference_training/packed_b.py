"""The training forward of model B: batched square images, several questions packed behind each.

As harness/reference_training/packed.py does for model A: the native modules' own weights, one sequence
[vision_start, image, vision_end, question 1, question 2, ...] with a block mask. Patches come in merge-unit order,
four to a 32-pixel unit, so that the labels of model A serve here too; the language model sees them in raster order.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from harness.reference_training.architecture import MERGE, PATCH_PX
from harness.reference_training.architecture_b import SIDE, raster_of_merge_order
from harness.reference_training.packed import GAZE_HEADS, GAZE_LAYERS, WORDS, _block_mask, _mix, _turn
from harness.reference_training.vocabulary import SPECIALS

START, END = SPECIALS.index("<|vision_start|>"), SPECIALS.index("<|vision_end|>")


@dataclass(frozen=True)
class LayoutB:
    """Constants of one (image side, questions, question length); T = patches + 2 + questions * length.

    side: patches of an image's edge; raster (N,): the merge-order place of each raster patch; cos, sin (T, head_dim);
    mask (T, T) additive.
    """

    side: int
    raster: Tensor
    merged: Tensor
    cos: Tensor
    sin: Tensor
    mask: Tensor


def layout_b(model: LlavaForConditionalGeneration, side_px: int, questions: int, length: int) -> LayoutB:
    """The constants for images of `side_px` and `questions` blocks of `length` tokens behind each."""
    side = side_px // PATCH_PX
    prefix = side**2 + 2
    positions = torch.cat([torch.arange(prefix), (prefix + torch.arange(length)).repeat(questions)])
    cos, sin = model.model.language_model.rotary_emb(torch.zeros(1), positions[None])
    raster = raster_of_merge_order(side)
    return LayoutB(side, raster, raster.argsort(), cos[0], sin[0], _block_mask(prefix, questions, length))


class PackedModelB(nn.Module):
    """Batched images and packed questions through the weights of a native model B."""

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.native = model

    def see(self, patches: Tensor, tables: LayoutB) -> tuple[Tensor, Tensor, Tensor]:
        """patches (B, N, 768) in merge-unit order -> ViT states (B, N, 160), the mean token of each unit (B, n, 128)
        and all tokens (B, N, 128) in raster order."""
        tower = self.native.model.vision_tower
        embeddings = tower.embeddings
        states = F.linear(patches, embeddings.patch_embedding.weight.flatten(1))
        states = states + self._positions(tables)
        first = embeddings.class_embedding + embeddings.position_embedding.weight[0]
        states = torch.cat([first.expand(len(states), 1, -1).to(states.dtype), states], dim=1)
        states = tower.pre_layrnorm(states)
        for layer in tower.encoder.layers[:-1]:
            states = states + _vision_attention(layer.self_attn, layer.layer_norm1(states))
            states = states + layer.mlp(layer.layer_norm2(states))
        states = states[:, 1:]
        tokens = self.native.model.multi_modal_projector(states)  # (B, N, 128), merge order
        return states, tokens.unflatten(1, (-1, MERGE**2)).mean(2), tokens[:, tables.raster]

    def _positions(self, tables: LayoutB) -> Tensor:
        """Learned positions (N, 160) in merge order, interpolated for images smaller than the tower's."""
        table = self.native.model.vision_tower.embeddings.position_embedding.weight[1:]
        if tables.side != SIDE:
            grid = table.view(1, SIDE, SIDE, -1).permute(0, 3, 1, 2).float()
            grid = F.interpolate(grid, size=(tables.side, tables.side), mode="bilinear", align_corners=True)
            table = grid[0].flatten(1).T
        return table[tables.merged]

    def answer(
        self,
        units: Tensor,
        tokens: Tensor,
        questions: Tensor,
        tables: LayoutB,
        watched: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """tokens (B, N, 128) in raster order, questions (B, Q, length) ids -> logits (B, Q * length, vocabulary).

        units is not used: it keeps the signature of model A's forward. `watched` as there, the attention over a unit
        being the sum over its four tokens.
        """
        language = self.native.model.language_model
        n = tokens.shape[1]
        marks = language.embed_tokens(torch.tensor([START, END]).to(questions.device))
        start, end = marks[:, None].expand(2, len(questions), -1)[:, :, None].unbind(0)
        states = torch.cat([start, tokens, end, language.embed_tokens(questions.flatten(1))], dim=1)  # (B, T, 128)
        for index, layer in enumerate(language.layers):
            if watched is not None and index == GAZE_LAYERS[0]:
                watched[WORDS] = states[:, n + 2 :]
            mixed, query, key = _text_attention(layer.self_attn, layer.input_layernorm(states), tables)
            states = states + mixed
            if watched is not None and index in GAZE_LAYERS:
                watched[index] = _gaze(layer.self_attn, query, key, tables)
            states = states + layer.mlp(layer.post_attention_layernorm(states))
        return self.native.lm_head(language.norm(states[:, n + 2 :]))


def _vision_attention(attention: nn.Module, states: Tensor) -> Tensor:
    batch, n, width = states.shape
    shape = (batch, n, attention.num_heads, -1)
    query, key, value = (
        projection(states).view(shape).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return attention.out_proj(_mix(query, key, value, None).transpose(1, 2).reshape(batch, n, width))


def _text_attention(attention: nn.Module, states: Tensor, tables: LayoutB) -> tuple[Tensor, Tensor, Tensor]:
    batch, total, _ = states.shape
    shape = (batch, total, -1, attention.head_dim)
    query, key, value = (
        projection(states).view(shape).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    cos, sin = tables.cos.to(query.dtype), tables.sin.to(query.dtype)
    query, key = _turn(query, cos, sin), _turn(key, cos, sin)
    groups = attention.num_key_value_groups
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    mixed = _mix(query, key, value, tables.mask)
    return attention.o_proj(mixed.transpose(1, 2).reshape(batch, total, -1)), query, key


def _gaze(attention: nn.Module, query: Tensor, key: Tensor, tables: LayoutB) -> Tensor:
    n = tables.raster.shape[0]
    seen = key[:, :GAZE_HEADS, 1 : n + 1][:, :, tables.merged]  # merge order: four tokens of a unit are neighbours
    scores = query[:, :GAZE_HEADS, n + 2 :] @ seen.transpose(2, 3)  # (B, heads, Q * length, N)
    share = (scores.float() * attention.scaling).log_softmax(-1)
    return share.unflatten(-1, (-1, MERGE**2)).logsumexp(-1)
