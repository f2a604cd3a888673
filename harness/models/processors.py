"""Processors of published models without their files: the real classes, the catalogue's numbers, words for a tokenizer.

The image half is what the hub's preprocessor makes of pixels. The text half knows the marks of the family's chat
template, at their own ids, and TEXT: every other word is one token, so that a prompt of N words has N text tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, InternVLProcessor, PreTrainedTokenizerFast, Qwen2_5_VLProcessor, Qwen3VLProcessor

if TYPE_CHECKING:
    from harness.models.catalogue import CatalogueEntry


# transformers' Qwen and InternVL processors insist on a video processor, which needs torchvision. Without the video
# half they work with and without it.
def image_only(processor_class: type) -> type:
    """The processor class without its video half; builds, loads and saves like the original."""
    return type(
        processor_class.__name__,
        (processor_class,),
        {
            "get_attributes": classmethod(lambda cls: ["image_processor", "tokenizer"]),
            "video_processor": None,
            "__module__": processor_class.__module__,
        },
    )


PROCESSORS = {"qwen3_vl": Qwen3VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor, "internvl": InternVLProcessor}


def load_processor(folder: str | Path, backend: str = "pil", revision: str = "main"):
    """The processor saved in `folder` (or named on the hub), without its video half, images handled by `backend`.

    Raises ValueError where the model type has no processor here.
    """
    from transformers import AutoProcessor

    kind = AutoConfig.from_pretrained(folder, revision=revision, trust_remote_code=False).model_type
    if kind in ("llava", "llava_next"):
        return AutoProcessor.from_pretrained(folder, backend=backend, revision=revision, trust_remote_code=False)
    if kind not in PROCESSORS:
        raise ValueError(
            f"no processor known for model type {kind!r}; known: {', '.join(sorted(PROCESSORS))}, llava, llava_next"
        )
    return image_only(PROCESSORS[kind]).from_pretrained(folder, backend=backend, revision=revision)


TEXT = (  # words common enough to be one token of a real tokenizer each
    "the red box stands left of a small green tree and two dogs look at it while one man reads the big sign near "
    "that old house with four open windows under blue sky"
)
UNKNOWN = "[unknown]"
_QWEN_MARKS = {"<|im_start|>": 151644, "<|im_end|>": 151645, "<|endoftext|>": 151643}
_TURN = (
    "{{% for message in messages %}}{before}{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}"
    "{image}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{after}{{% endfor %}}"
)


@dataclass(frozen=True)
class Words:
    """What a family's template puts around one user turn: white space parts tokens, as nowhere in the real one.

    marks: special token -> its id; before, after: words around the images and the text; roles: attribute of the
    tokenizer -> its token.
    """

    marks: Mapping[str, int]
    image: str
    before: str
    after: str
    image_words: str = ""  # how an image stands in the template; "" = its token alone
    roles: Mapping[str, str] = field(default_factory=dict)

    @property
    def template(self) -> str:
        return _TURN.format(before=self.before, after=self.after, image=self.image_words or self.image)


_ASSISTANT = " <|im_end|> newline <|im_start|> assistant newline"
_VISION = {"<|vision_start|>": 151652, "<|vision_end|>": 151653, "<|image_pad|>": 151655, "<|video_pad|>": 151656}
_QWEN = Words(
    {**_QWEN_MARKS, **_VISION},
    "<|image_pad|>",
    "<|im_start|> user newline ",
    _ASSISTANT,
    "<|vision_start|><|image_pad|><|vision_end|>",
)
_SYSTEM = "<|im_start|> system newline You are a helpful assistant . <|im_end|> newline "
_WORDS = {
    "qwen3_vl": _QWEN,
    "qwen2_5_vl": Words(_QWEN.marks, _QWEN.image, _SYSTEM + _QWEN.before, _QWEN.after, _QWEN.image_words),
    "internvl": Words(
        {**_QWEN_MARKS, "<img>": 151665, "</img>": 151666, "<IMG_CONTEXT>": 151667, "<video>": 151668},
        "<IMG_CONTEXT>",
        "<|im_start|> user newline ",
        _ASSISTANT,
        "<IMG_CONTEXT> newline ",
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "llava": Words(
        {"<s>": 1, "</s>": 2, "<image>": 32000}, "<image>", "<s> USER : ", " A SS IST ANT :", "<image> newline "
    ),
    "llava_next": Words(
        {"<s>": 1, "</s>": 2, "<image>": 32000},
        "<image>",
        "<s> A chat between a curious human and an artificial intelligence assistant . The assistant gives helpful , "
        "detailed , and pol ite answers to the human ' s questions . USER : ",
        " A SS IST ANT :",
        "<image> newline ",
    ),
}


def processor_of(entry: CatalogueEntry, backend: str = "pil", seed: int = 0) -> Any:
    """The processor of a catalogue entry, images handled by `backend` ("pil" or "torchvision")."""
    words, images = _WORDS[entry.family], dict(entry.images)
    tokenizer = _tokenizer(words, entry, seed)
    ending = "Pil" if backend == "pil" else ""

    def images_by(kind: str, **numbers: Any) -> Any:
        return getattr(transformers, kind + ending)(**numbers)

    match entry.family:
        case "qwen3_vl" | "qwen2_5_vl":
            least, most = images.pop("min_pixels"), images.pop("max_pixels")
            pixels = images_by("Qwen2VLImageProcessor", size={"shortest_edge": least, "longest_edge": most}, **images)
            kind = "Qwen3VLProcessor" if entry.family == "qwen3_vl" else "Qwen2_5_VLProcessor"
            return image_only(getattr(transformers, kind))(pixels, tokenizer, chat_template=words.template)
        case "internvl":
            side = images.pop("size")
            pixels = images_by("GotOcr2ImageProcessor", size={"height": side, "width": side}, **images)
            return image_only(transformers.InternVLProcessor)(
                pixels, tokenizer, image_seq_length=entry.config["image_seq_length"], chat_template=words.template
            )
    side = images.pop("size")
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    shared = {
        "patch_size": entry.config["vision_config"]["patch_size"],
        "vision_feature_select_strategy": entry.config["vision_feature_select_strategy"],
        "num_additional_image_tokens": 1,
        "chat_template": words.template,
    }
    if entry.family == "llava":
        return transformers.LlavaProcessor(images_by("CLIPImageProcessor", **sizes, **images), tokenizer, **shared)
    grid = entry.config["image_grid_pinpoints"]
    pixels = images_by("LlavaNextImageProcessor", image_grid_pinpoints=grid, **sizes, **images)
    return transformers.LlavaNextProcessor(pixels, tokenizer, **shared)


def _tokenizer(words: Words, entry: CatalogueEntry, seed: int) -> PreTrainedTokenizerFast:
    """Marks at their ids; every other word at one drawn from the ordinary ids below them."""
    plain = sorted({*TEXT.split(), *words.before.split(), *words.after.split(), "newline"} - set(words.marks))
    ids = Random(seed).sample(range(100, min(words.marks[words.image], 30000)), len(plain))
    vocabulary = {**dict(zip(plain, ids, strict=True)), **words.marks, UNKNOWN: 0}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = "<|im_end|>" if "<|im_end|>" in words.marks else "</s>"
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token=end, unk_token=UNKNOWN, padding_side="left",
        extra_special_tokens=dict(words.roles),
    )  # fmt: skip
    fast.add_special_tokens({"additional_special_tokens": sorted(words.marks)})
    return fast
