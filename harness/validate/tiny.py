"""Tiny random models of every family, with weights that leave nothing at zero, and prompts for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

Grids = tuple[tuple[int, int], ...]  # rows and columns of units of each image of one prompt
IMAGE, START, END, EOS, TEXT = 60, 61, 62, 63, 40  # token ids; text ids are 0..39


@dataclass(frozen=True)
class TinyFamily:
    """How to make a tiny model of a family and prompts for it.

    build(dtype, attention, vit_layers, llm_layers); processed(grids, seed): what a processor would give; one_image:
    grids of one-image prompts, the largest first; several_images: of one prompt of images of different sizes. A tower
    of one resolution has images of one size alone; its second prompt in `one_image` holds three. native_tolerance:
    how far logits may lie from the native ones when nothing is pruned; 0 unless the tower orders its tokens anew.
    """

    build: Callable[..., nn.Module]
    processed: Callable[..., dict[str, Tensor]]
    one_image: tuple[Grids, ...]
    several_images: Grids
    native_tolerance: float = 0.0


def qwen3_vl(
    dtype: torch.dtype = torch.float32, attention: str = "sdpa", vit_layers: int = 8, llm_layers: int = 6
) -> Qwen3VLForConditionalGeneration:
    """A Qwen3-VL of 16-wide heads: 8 ViT blocks with DeepStack taps at 1, 3, 5, GQA 4/2, M-RoPE."""
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": llm_layers,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
        },
        vision_config={
            "depth": vit_layers, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1, 3, 5],
        },
        image_token_id=IMAGE, vision_start_token_id=START, vision_end_token_id=END, video_token_id=59,
    )  # fmt: skip
    config._attn_implementation = attention
    return _filled(Qwen3VLForConditionalGeneration, config, dtype, attention)


def internvl(
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    vit_layers: int = 8,
    llm_layers: int = 6,
    **vision: Any,
) -> InternVLForConditionalGeneration:
    """An InternVL of 16-wide heads: tiles of 6 x 6 units of 2 x 2 patches with a CLS, a Qwen2 with GQA 4/2.

    vision: fields of its vision_config that shall be others.
    """
    config = InternVLConfig(
        vision_config={
            "num_hidden_layers": vit_layers, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2,
            "image_size": 48, "patch_size": 4, **vision,
        },
        text_config={"model_type": "qwen2", **_decoder(llm_layers)},
        image_token_id=IMAGE, image_seq_length=36,
    )  # fmt: skip
    return _filled(InternVLForConditionalGeneration, config, dtype, attention)


def qwen2_5_vl(
    dtype: torch.dtype = torch.float32, attention: str = "sdpa", vit_layers: int = 8, llm_layers: int = 6
) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL of 16-wide heads: windows of 2 x 2 units, every other ViT block attends to whole images."""
    decoder = _decoder(llm_layers)
    decoder |= {"hidden_size": 64, "bos_token_id": None, "eos_token_id": EOS}
    decoder["rope_parameters"] |= {"mrope_section": [4, 2, 2]}
    del decoder["head_dim"]  # always hidden_size / num_attention_heads
    config = Qwen2_5_VLConfig(
        text_config=decoder,
        vision_config={
            "depth": vit_layers, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "window_size": 16,
            "fullatt_block_indexes": list(range(1, vit_layers, 2)),
        },
        image_token_id=IMAGE, vision_start_token_id=START, vision_end_token_id=END, video_token_id=59,
    )  # fmt: skip
    return _filled(Qwen2_5_VLForConditionalGeneration, config, dtype, attention)


def llava(
    dtype: torch.dtype = torch.float32, attention: str = "sdpa", vit_layers: int = 8, llm_layers: int = 6
) -> LlavaForConditionalGeneration:
    """A LLaVA of 16-wide heads: a CLIP tower of 6 x 6 patches whose last block is not used, a Llama with GQA 4/2."""
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "num_hidden_layers": vit_layers + 1, "hidden_size": 32,
            "intermediate_size": 48, "num_attention_heads": 2, "image_size": 24, "patch_size": 4, "projection_dim": 32,
        },
        text_config={"model_type": "llama", **_decoder(llm_layers)},
        image_token_index=IMAGE, vision_feature_layer=-2, vision_feature_select_strategy="default", image_seq_length=36,
    )  # fmt: skip
    return _filled(LlavaForConditionalGeneration, config, dtype, attention)


def llava_next(
    dtype: torch.dtype = torch.float32, attention: str = "sdpa", vit_layers: int = 8, llm_layers: int = 6
) -> LlavaNextForConditionalGeneration:
    """A LLaVA-NeXT: the tower of the tiny LLaVA on tiles of 24 pixels, up to 2 x 2, before a Mistral."""
    config = LlavaNextConfig(
        vision_config={
            "model_type": "clip_vision_model", "num_hidden_layers": vit_layers + 1, "hidden_size": 32,
            "intermediate_size": 48, "num_attention_heads": 2, "image_size": 24, "patch_size": 4, "projection_dim": 32,
        },
        text_config={"model_type": "mistral", "sliding_window": None, **_decoder(llm_layers)},
        image_token_index=IMAGE, vision_feature_layer=-2, vision_feature_select_strategy="default",
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]], image_seq_length=36,
    )  # fmt: skip
    return _filled(LlavaNextForConditionalGeneration, config, dtype, attention)


def _decoder(llm_layers: int) -> dict[str, Any]:
    """Sizes of a decoder with one-dimensional rotary positions."""
    return {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": llm_layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }  # fmt: skip


def _filled(kind: type[nn.Module], config: Any, dtype: torch.dtype, attention: str) -> Any:
    """A model whose every parameter is random, norms around 1; nothing stays at zero."""
    config._attn_implementation = attention
    torch.manual_seed(0)
    model = kind(config)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(crc32(name.encode())))
        scale = 0.3 if parameter.ndim == 1 else 1.5 / parameter.shape[-1] ** 0.5
        norm = ("norm" in name or "layrnorm" in name or "ln_q" in name) and name.endswith("weight")
        parameter.data = noise * scale + (1.0 if norm else 0.0)
    model.generation_config.eos_token_id = EOS
    model.generation_config.pad_token_id = 0
    model.set_attn_implementation(attention)
    return model.to(dtype).eval()


def processed(grids: tuple[tuple[int, int], ...] = ((4, 6),), seed: int = 1, text: int = 5) -> dict[str, Tensor]:
    """What a processor would give for images of `grids` (rows, columns) units with text around each."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = [3, 7]
    for rows, columns in grids:
        ids += [START, *[IMAGE] * (rows * columns), END, 11]
    ids += [*torch.randint(0, TEXT, (text,), generator=generator).tolist(), EOS, 9, 12]
    patches = sum(rows * columns for rows, columns in grids) * 4
    return {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
        "pixel_values": torch.randn(patches, 3 * 2 * 4 * 4, generator=generator),
        "image_grid_thw": torch.tensor([[1, rows * 2, columns * 2] for rows, columns in grids]),
        "mm_token_type_ids": torch.tensor([[int(token == IMAGE) for token in ids]]),
    }


def llava_processed(grids: Grids = ((6, 6),), seed: int = 1, text: int = 5) -> dict[str, Tensor]:
    """What a LLaVA processor would give for as many images as there are `grids`, all of the tower's size."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = [3, 7]
    for rows, columns in grids:
        ids += [*[IMAGE] * (rows * columns), 11]
    ids += [*torch.randint(0, TEXT, (text,), generator=generator).tolist(), EOS, 9, 12]
    sizes = {(4 * rows, 4 * columns) for rows, columns in grids}
    assert len(sizes) == 1, "a tower of one resolution"
    return {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
        "pixel_values": torch.randn(len(grids), 3, *sizes.pop(), generator=generator),
    }


def internvl_processed(grids: Grids = ((6, 6),), seed: int = 1, text: int = 5) -> dict[str, Tensor]:
    """What an InternVL processor would give for one picture of as many tiles as there are `grids`."""
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(rows * columns for rows, columns in grids)
    words = torch.randint(0, TEXT, (text,), generator=generator).tolist()
    ids = [3, 7, START, *[IMAGE] * tokens, END, 11, *words, EOS, 9, 12]
    sizes = {(8 * rows, 8 * columns) for rows, columns in grids}
    assert len(sizes) == 1, "tiles of one resolution"
    return {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
        "pixel_values": torch.randn(len(grids), 3, *sizes.pop(), generator=generator),
    }


def llava_next_processed(grids: Grids = ((6, 12),), seed: int = 1, text: int = 5) -> dict[str, Tensor]:
    """What a LLaVA-NeXT processor would give for pictures of 4 x `grids` pixels (rows, columns)."""
    generator = torch.Generator().manual_seed(seed)
    pinpoints, ids, tiles = [[24, 48], [48, 24], [48, 48]], [3, 7], []
    sizes = torch.tensor([[4 * rows, 4 * columns] for rows, columns in grids])
    for size in sizes.tolist():
        height, width = select_best_resolution(size, pinpoints)
        grid = torch.zeros(1, height // 4, width // 4)
        tiles.append(1 + height * width // 24**2)
        ids += [*[IMAGE] * (36 + (1 + unpad_image(grid, size).shape[2]) * unpad_image(grid, size).shape[1]), 11]
    ids += [*torch.randint(0, TEXT, (text,), generator=generator).tolist(), EOS, 9, 12]
    return {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
        "pixel_values": torch.randn(len(grids), max(tiles), 3, 24, 24, generator=generator),
        "image_sizes": sizes,
    }


TINY: dict[str, TinyFamily] = {
    "qwen3_vl": TinyFamily(qwen3_vl, processed, (((6, 6),), ((4, 5),), ((1, 3),)), ((2, 3), (5, 4))),
    "internvl": TinyFamily(
        internvl, internvl_processed, (((6, 6),), ((6, 6),) * 3), ((6, 6),) * 2, native_tolerance=5e-5
    ),
    "qwen2_5_vl": TinyFamily(qwen2_5_vl, processed, (((6, 6),), ((4, 5),), ((1, 3),)), ((2, 3), (5, 4))),
    "llava": TinyFamily(llava, llava_processed, (((6, 6),), ((6, 6),) * 3), ((6, 6),) * 2),
    "llava_next": TinyFamily(llava_next, llava_next_processed, (((6, 12),), ((12, 6),)), ((6, 12), (12, 6))),
}
