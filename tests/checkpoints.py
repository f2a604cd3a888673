"""Tiny checkpoints on disk in the hub's format: random weights, real processors, a real tokenizer and chat template.

Every family's tests load them through `open_model`, `harness run` and `harness.prune`, as a user would.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

from harness.models.processors import image_only

WORDS = (
    "USER: what is the number in this picture? describe the image. ASSISTANT: red blue green a cat and a dog",
    "is there a person on the left? answer with one word: yes or no. which colour has the car? 0 1 2 3 4 5 6 7 8 9",
)
VICUNA = (  # LLaVA-1.5's template: image placeholders in front of the text, roles in capital letters
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
CHATML = (  # Qwen's template: a system turn, roles between markers, the parts of a message in their order
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

PLAIN_CHATML = (  # InternVL's template: the same without a system turn, an image alone on its line
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(special: Sequence[str] = ("<image>",), vocabulary: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level BPE of a few hundred tokens, `special` ones among them; ids from 0."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<pad>", "<s>", "</s>", *special], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=list(special), padding_side="left",
    )  # fmt: skip


def saved(folder: Path, model: nn.Module, processor: Any) -> Path:
    """A folder with configuration, weights, processor, tokenizer and template."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    return folder


def filled(kind: type[nn.Module], config: Any, ids: PreTrainedTokenizerFast) -> nn.Module:
    """A model of this configuration whose every weight is random and seeded, answering at most eight tokens."""
    torch.manual_seed(0)
    model = kind(config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 0.3 if parameter.ndim == 1 else 1.5 / parameter.shape[-1] ** 0.5
        norm = ("norm" in name or "layrnorm" in name or "ln_q" in name) and name.endswith("weight")
        parameter.data = noise * scale + (1.0 if norm else 0.0)
    model.generation_config.eos_token_id = ids.eos_token_id
    model.generation_config.pad_token_id = ids.pad_token_id
    return model


def llava(folder: Path) -> Path:
    """A LLaVA-1.5: 6 x 6 patches of 8 pixels, feature layer -2 of nine, six layers of Llama."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    ids = tokenizer()
    config = LlavaConfig(
        vision_config=clip_tower(48, 8),
        text_config={"model_type": "llama", **decoder(len(ids))},
        image_token_index=ids.convert_tokens_to_ids("<image>"), image_seq_length=36,
    )  # fmt: skip
    size = {"height": 48, "width": 48}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=size), tokenizer=ids, patch_size=8,
        vision_feature_select_strategy="default", image_token="<image>", num_additional_image_tokens=1,
        chat_template=VICUNA,
    )  # fmt: skip
    return saved(folder, filled(LlavaForConditionalGeneration, config, ids), processor)


def llava_next(folder: Path) -> Path:
    """A LLaVA-NeXT: the tower of the tiny LLaVA on a base image and up to 2 x 2 tiles of 48 pixels."""
    from transformers import (
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessorPil,
        LlavaNextProcessor,
    )

    ids = tokenizer()
    pinpoints = [[48, 96], [96, 48], [96, 96]]
    config = LlavaNextConfig(
        vision_config=clip_tower(48, 8),
        text_config={"model_type": "mistral", "sliding_window": None, **decoder(len(ids))},
        image_token_index=ids.convert_tokens_to_ids("<image>"), image_seq_length=36, image_grid_pinpoints=pinpoints,
    )  # fmt: skip
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}, image_grid_pinpoints=pinpoints
    )
    processor = LlavaNextProcessor(
        image_processor=images, tokenizer=ids, patch_size=8, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1, chat_template=VICUNA,
    )  # fmt: skip
    return saved(folder, filled(LlavaNextForConditionalGeneration, config, ids), processor)


def qwen2_5_vl(folder: Path) -> Path:
    """A Qwen2.5-VL: units of 16 pixels, windows of 2 x 2 units, every other of eight blocks attends to whole images."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessorPil,
    )

    start, end, image, video = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
    ids = tokenizer(("<|im_start|>", "<|im_end|>", start, end, image, video))
    ids.eos_token = "<|im_end|>"
    text = decoder(len(ids)) | {"hidden_size": 64, "bos_token_id": None, "eos_token_id": ids.eos_token_id}
    text["rope_parameters"] |= {"mrope_section": [4, 2, 2]}
    del text["head_dim"]  # always hidden_size / num_attention_heads
    number = ids.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config={
            "depth": 8, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "window_size": 32,
            "fullatt_block_indexes": [1, 3, 5, 7],
        },
        image_token_id=number(image), video_token_id=number(video), vision_start_token_id=number(start),
        vision_end_token_id=number(end),
    )  # fmt: skip
    pixels = {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}
    images = Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, temporal_patch_size=2, size=pixels)
    processor = image_only(Qwen2_5_VLProcessor)(image_processor=images, tokenizer=ids, chat_template=CHATML)
    return saved(folder, filled(Qwen2_5_VLForConditionalGeneration, config, ids), processor)


def internvl(folder: Path) -> Path:
    """An InternVL: tiles of 48 pixels, 3 x 3 units of 2 x 2 patches each, at most four and their thumbnail."""
    from transformers import (
        GotOcr2ImageProcessorPil,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
    )

    names = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    plain = tokenizer(("<|im_start|>", "<|im_end|>", *names.values()))
    ids = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer, eos_token="<|im_end|>", pad_token="<pad>", padding_side="left",
        extra_special_tokens=names,
    )  # fmt: skip
    config = InternVLConfig(
        vision_config={
            "num_hidden_layers": 8, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2,
            "image_size": 48, "patch_size": 8,
        },
        text_config={"model_type": "qwen2", **decoder(len(ids)), "eos_token_id": ids.eos_token_id},
        image_token_id=ids.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=9,
    )  # fmt: skip
    images = GotOcr2ImageProcessorPil(size={"height": 48, "width": 48}, crop_to_patches=True, max_patches=4)
    processor = image_only(InternVLProcessor)(
        image_processor=images, tokenizer=ids, image_seq_length=9, chat_template=PLAIN_CHATML
    )
    return saved(folder, filled(InternVLForConditionalGeneration, config, ids), processor)


def clip_tower(image_px: int, patch_px: int) -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model", "num_hidden_layers": 9, "hidden_size": 32, "intermediate_size": 48,
        "num_attention_heads": 2, "image_size": image_px, "patch_size": patch_px, "projection_dim": 32,
    }  # fmt: skip


def decoder(vocabulary: int) -> dict[str, Any]:
    """Sizes of a language model of six layers."""
    return {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }  # fmt: skip
