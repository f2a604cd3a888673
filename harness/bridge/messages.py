"""A chat turn as lmms-eval's tasks build it, and the model's processor's view of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from harness.models.loading import OpenModel
from harness.records.errors import UsageError

IGNORED_STOP = "\n\n"  # what a task gets that names none; lmms-eval's own adapters leave it out too


@dataclass(frozen=True)
class Turn:
    """A prompt in words. text: the chat template filled in, with a placeholder for each image."""

    text: str
    images: tuple[Image.Image, ...]

    def processed(self, model: OpenModel) -> Any:
        """What the processor gives, on the host; without images the tokenizer alone."""
        if not self.images:
            return model.processor.tokenizer(self.text, return_tensors="pt", add_special_tokens=False)
        return model.processor(images=list(self.images), text=[self.text], return_tensors="pt")


def turn_of(model: OpenModel, messages: Sequence[Mapping[str, Any]]) -> Turn:
    """The turn of `doc_to_messages`, images and words in their order. Raises UsageError for video or sound."""
    images: list[Image.Image] = []
    turns = []
    for message in messages:
        content = []
        for part in message["content"]:
            if part["type"] == "image":
                images.append(_opened(part["url"]))
                content.append({"type": "image"})
            elif part["type"] == "text":
                content.append({"type": "text", "text": part["text"]})
            else:
                raise UsageError(f"this task shows {part['type']}; pruning takes images and text")
        turns.append({"role": message["role"], "content": content})
    text = model.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return Turn(text, tuple(images))


def stopped(text: str, until: str | Sequence[str] | None) -> str:
    """The answer up to the first of the task's stop strings."""
    stops = [until] if isinstance(until, str) else list(until or ())
    for stop in stops:
        if stop and stop != IGNORED_STOP:
            text = text.partition(stop)[0]
    return text.strip()


def _opened(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    with Image.open(image) as opened:
        return opened.convert("RGB")
