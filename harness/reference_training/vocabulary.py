"""The reference model's tokenizer and processor: a small byte-level BPE, digits split singly, Qwen's vision markers.

Byte-level: every text has an encoding. The vocabulary is learned from the suite's own words and a little plain English.
"""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLProcessor,
)

from harness.models.processors import image_only
from harness.reference_training.words import CARDS, COLOUR_NAMES, FAMILIES, QUADRANTS, SHAPE_NAMES, question

VOCABULARY_SIZE = 448
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PLAIN_ENGLISH = (
    "what is the number in this picture? describe the image. who are you and what can you see there? "
    "answer with one word. are there any other things on the left or on the right of it? please say which one."
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<|im_start|>' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
)


def build_processor() -> Qwen3VLProcessor:
    """Model A's processor from nothing: vocabulary trained in a fraction of a second, the same every time."""
    images = Qwen2VLImageProcessorPil(
        patch_size=16,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 64 * 64, "longest_edge": 512 * 512},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return image_only(Qwen3VLProcessor)(
        image_processor=images, tokenizer=build_tokenizer(), chat_template=CHAT_TEMPLATE
    )


def build_processor_b() -> LlavaProcessor:
    """Model B's processor: the same words and template, images scaled to the tower's one size."""
    side = {"height": 256, "width": 256}
    images = CLIPImageProcessorPil(
        do_resize=True,
        size=side,
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        image_token="<|image_pad|>",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of both models."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_train_bpe(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIALS[1:]),
        padding_side="left",
    )


def save_processor_b(folder: Path) -> None:
    """Write model B's processor files into `folder` in the hub's format."""
    processor = build_processor_b()
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)


def save_processor(folder: Path) -> None:
    """Write the processor's files into `folder` in the hub's format."""
    processor = build_processor()
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)  # preprocessor_config.json, which older readers look for


def _train_bpe() -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(), trainer)
    return bpe


def _corpus() -> list[str]:
    subjects = {
        "read": COLOUR_NAMES,
        "exist": [f"{colour} {shape}" for colour in COLOUR_NAMES for shape in SHAPE_NAMES],
        "color": SHAPE_NAMES,
        "count": SHAPE_NAMES,
        "where": SHAPE_NAMES,
        "digit": CARDS,
    }
    texts = [question(family, subject) for family in FAMILIES for subject in subjects[family]]
    return texts * 4 + ["yes", "no", *COLOUR_NAMES, *QUADRANTS] * 40 + [PLAIN_ENGLISH]
