"""Model B: a native LLaVA of 5.4 million parameters, a CLIP tower with CLS before sixteen thin language layers.

256 visual tokens of 16 x 16 pixels, the features of the layer before the last, one-dimensional rotary positions: what
methods that read the CLS token's attention were made for. Model A has neither CLS nor that layout.
"""

import math

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from harness.reference_training.architecture import IMAGE_PX, PATCH_PX, new_model
from harness.reference_training.labels import merge_order
from harness.reference_training.vocabulary import SPECIALS, VOCABULARY_SIZE

SIDE = IMAGE_PX // PATCH_PX
WIDTH, VISION_WIDTH, NEURONS = 128, 160, 312
EMBEDDING_RMS = 3.3  # of model A's embedded patches, which no norm follows there: the scale its blocks were trained on


def model_config() -> LlavaConfig:
    """The configuration of model B; every number of the architecture is here."""
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=VISION_WIDTH,
            intermediate_size=640,
            num_hidden_layers=8,
            num_attention_heads=5,
            image_size=IMAGE_PX,
            patch_size=PATCH_PX,
            hidden_act="gelu_pytorch_tanh",
            projection_dim=WIDTH,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=WIDTH,
            intermediate_size=NEURONS,
            num_hidden_layers=16,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
            bos_token_id=None,
            eos_token_id=SPECIALS.index("<|im_end|>"),
            pad_token_id=SPECIALS.index("<|endoftext|>"),
        ),
        image_token_index=SPECIALS.index("<|image_pad|>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=SIDE**2,
        tie_word_embeddings=True,
    )


def new_model_b(seed: int, start: Qwen3VLForConditionalGeneration | None = None) -> LlavaForConditionalGeneration:
    """Model B before training, float32. start: model A, whose weights it takes over where the parts correspond.

    None: from A untrained, which scales every matrix sensibly.
    """
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(model_config()).float()
    with torch.no_grad():
        _take_vision(model, start or new_model(seed))
        _take_language(model, start or new_model(seed))
        for linear in (model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2):
            linear.weight.normal_(0.0, linear.in_features**-0.5)
            linear.bias.zero_()
    return model


def _take_vision(model: LlavaForConditionalGeneration, start: Qwen3VLForConditionalGeneration) -> None:
    """Patches, positions and blocks. A's rotary positions have no counterpart, nor has its merger."""
    tower, visual = model.model.vision_tower, start.model.visual
    patch = visual.patch_embed.proj
    tower.embeddings.patch_embedding.weight.copy_(patch.weight.sum(2))  # a still image repeats its frame
    tower.embeddings.position_embedding.weight[0].zero_()
    tower.embeddings.position_embedding.weight[1:].copy_(visual.pos_embed.weight + patch.bias)
    tower.embeddings.class_embedding.normal_(0.0, 0.5)
    tower.pre_layrnorm.weight.fill_(EMBEDDING_RMS)
    for ours, theirs in zip(tower.encoder.layers, visual.blocks, strict=True):
        for name, part in zip(("q", "k", "v"), range(3), strict=True):
            projection = getattr(ours.self_attn, f"{name}_proj")
            projection.weight.copy_(theirs.attn.qkv.weight.chunk(3)[part])
            projection.bias.copy_(theirs.attn.qkv.bias.chunk(3)[part])
        for mine, other in (
            (ours.self_attn.out_proj, theirs.attn.proj),
            (ours.layer_norm1, theirs.norm1),
            (ours.layer_norm2, theirs.norm2),
            (ours.mlp.fc1, theirs.mlp.linear_fc1),
            (ours.mlp.fc2, theirs.mlp.linear_fc2),
        ):
            mine.weight.copy_(other.weight)
            mine.bias.copy_(other.bias)


def _take_language(model: LlavaForConditionalGeneration, start: Qwen3VLForConditionalGeneration) -> None:
    """Embeddings and layers; of each MLP the NEURONS with the largest weights; the norm of queries and keys, which
    Llama lacks, becomes a factor on their rows."""
    language, other = model.model.language_model, start.model.language_model
    language.embed_tokens.weight.copy_(other.embed_tokens.weight)
    language.norm.weight.copy_(other.norm.weight)
    for ours, theirs in zip(language.layers, other.layers, strict=True):
        ours.input_layernorm.weight.copy_(theirs.input_layernorm.weight)
        ours.post_attention_layernorm.weight.copy_(theirs.post_attention_layernorm.weight)
        ours.self_attn.v_proj.weight.copy_(theirs.self_attn.v_proj.weight)
        ours.self_attn.o_proj.weight.copy_(theirs.self_attn.o_proj.weight)
        for name in ("q", "k"):
            weight, norm = getattr(theirs.self_attn, f"{name}_proj").weight, getattr(theirs.self_attn, f"{name}_norm")
            scaled = _as_normed(weight, theirs.input_layernorm.weight, norm.weight)
            getattr(ours.self_attn, f"{name}_proj").weight.copy_(scaled)
        gate, up, down = (getattr(theirs.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
        kept = (gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)).topk(NEURONS).indices.sort().values
        ours.mlp.gate_proj.weight.copy_(gate[kept])
        ours.mlp.up_proj.weight.copy_(up[kept])
        ours.mlp.down_proj.weight.copy_(down[:, kept] * math.sqrt(gate.shape[0] / NEURONS))


def _as_normed(weight: Tensor, input_norm: Tensor, head_norm: Tensor) -> Tensor:
    """Rows scaled as the head's RMS norm would scale them on inputs of unit variance. weight: (heads x hd, d)."""
    heads = (weight * input_norm).unflatten(0, (-1, head_norm.shape[0]))  # (h, hd, d)
    rms = heads.pow(2).sum(-1).mean(-1).sqrt()  # (h,)
    return weight * (head_norm[None] / rms[:, None]).flatten()[:, None]


def raster_of_merge_order(side: int) -> Tensor:
    """For each patch in raster order, its place in merge-unit order, (side * side,) int64."""
    import numpy as np

    places = merge_order(np.arange(side * side).reshape(side, side))  # raster index of each place
    return torch.from_numpy(places).argsort()
