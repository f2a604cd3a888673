"""Questions of lmms-eval on our model: our chat template, our pixels, our engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from harness.models.loading import OpenModel
from harness.records.errors import UsageError
from harness.records.records import Sample
from harness.request.open_run import OpenRun
from harness.run.accuracy import Generation, generate, read

IGNORED_STOP = "\n\n"  # what a task gets that names none; lmms-eval's own adapters leave it out too
MAX_NEW_TOKENS = 1024  # where a task names no number, as lmms-eval's adapters have it


def sample_id(split: str, doc_id: int) -> str:
    """The name of a document in our log: its row number in the split that was chosen."""
    return f"{split}:{doc_id}"


def pictures_of(doc: Mapping[str, Any]) -> Iterator[Image.Image]:
    """The pictures among a document's values, in their order."""
    for value in doc.values():
        yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Image.Image))


def cluster_of(doc: Mapping[str, Any], otherwise: str) -> str:
    """16 hex digits of the sha256 over a document's first picture; `otherwise` where it has none."""
    picture = next(pictures_of(doc), None)
    if picture is None:
        return otherwise
    return hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class ChatTurn:
    """A prompt in words. text: the chat template filled in, with a placeholder for each image."""

    text: str
    images: tuple[Image.Image, ...]

    def inputs(self, model: OpenModel) -> Any:
        """The prompt as the engine takes it; None without images."""
        if not self.images:
            return None
        return model.family.inputs(
            model.processor(images=list(self.images), text=[self.text], return_tensors="pt"),
        )


def turn_of(model: OpenModel, messages: Sequence[Mapping[str, Any]]) -> ChatTurn:
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
    return ChatTurn(text, tuple(images))


def say(run: OpenRun, request: Any, doc: Mapping[str, Any], sample: Sample) -> Generation:
    """The answer to their request, greedy whatever temperature the task asks for.

    A question without images is answered by the native model: there is nothing to prune. Raises BudgetInfeasible,
    HarnessError, UsageError.
    """
    doc_to_messages, told = request.args[1], request.args[2]
    turn = turn_of(run.bench.model, doc_to_messages(doc))
    length = int(told.get("max_new_tokens") or MAX_NEW_TOKENS)
    inputs = turn.inputs(run.bench.model)
    said = read(run.bench.model, turn.text, length) if inputs is None else generate(run, inputs, sample, length)
    return replace(said, prediction=stopped(said.prediction, told.get("until")))


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
