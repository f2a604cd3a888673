"""Model A: a native Qwen3-VL of 6.7 million parameters, sixteen thin language layers over a ViT of eight blocks."""

import math

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from harness.reference_training.vocabulary import SPECIALS, VOCABULARY_SIZE

IMAGE_PX = 256
PATCH_PX = 16
MERGE = 2
UNIT_PX = PATCH_PX * MERGE
POSITION_RMS = 0.6


def model_config() -> Qwen3VLConfig:
    """The configuration of model A; every number of the architecture is here."""
    return Qwen3VLConfig(
        text_config={
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 16,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "bos_token_id": None,
            "eos_token_id": SPECIALS.index("<|im_end|>"),
            "pad_token_id": SPECIALS.index("<|endoftext|>"),
        },
        vision_config={
            "depth": 8,
            "hidden_size": 160,
            "intermediate_size": 640,
            "num_heads": 5,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": 128,
            "num_position_embeddings": (IMAGE_PX // PATCH_PX) ** 2,
            "deepstack_visual_indexes": [2],
        },
        image_token_id=SPECIALS.index("<|image_pad|>"),
        video_token_id=SPECIALS.index("<|video_pad|>"),
        vision_start_token_id=SPECIALS.index("<|vision_start|>"),
        vision_end_token_id=SPECIALS.index("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def new_model(seed: int) -> Qwen3VLForConditionalGeneration:
    """An untrained model A in float32 whose weights are nowhere degenerate.

    Matrices are normal with standard deviation 1/sqrt(fan-in), those that write into a residual stream smaller by
    sqrt(2 x layers); ViT positions start as 2-D sines of rms POSITION_RMS, without which positions stay far weaker
    than content.
    """
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(model_config()).float()
    generator = torch.Generator().manual_seed(seed)
    depth = {"visual": 8, "language_model": 16}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                continue
            std = 0.5 / math.sqrt(parameter.shape[0]) if "embed_tokens" in name else parameter[0].numel() ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "mlp.linear_fc2.weight")):
                std /= math.sqrt(2 * depth["visual" if ".visual." in name else "language_model"])
            parameter.normal_(0.0, std, generator=generator)
        model.model.language_model.embed_tokens.weight.normal_(0.0, 0.25, generator=generator)
        model.model.visual.pos_embed.weight.copy_(_sines(IMAGE_PX // PATCH_PX, 160) * POSITION_RMS * math.sqrt(2))
        for merger in [model.model.visual.merger, *model.model.visual.deepstack_merger_list]:
            merger.linear_fc2.weight.mul_(0.5)
    return model


def _sines(side: int, width: int) -> torch.Tensor:
    """(side * side, width): sines and cosines of the row in the first half, of the column in the second."""
    quarter = width // 4
    rates = torch.exp(-math.log(40.0) * torch.arange(quarter) / quarter) * math.pi / 2
    angles = torch.arange(side)[:, None] * rates  # (side, quarter)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None, :].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)
