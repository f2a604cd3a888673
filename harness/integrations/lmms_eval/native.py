"""Their tasks on our model: our chat template, our pixels, our engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from harness.budget.planning import Planner
from harness.flops.prefill import Cost, dims_of
from harness.integrations.lmms_eval.answer import Said
from harness.models.engine import Engine
from harness.models.loading import OpenModel
from harness.records.errors import UsageError
from harness.request.opening import Cell

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


MAX_NEW_TOKENS = 1024  # where a task names no number, as lmms-eval's adapters have it


THEIR_NAMES: Mapping[str, str] = {
    "qwen3_vl": "qwen3_vl", "qwen2_5_vl": "qwen2_5_vl", "internvl": "internvl_hf", "llava": "llava_hf",
    "llava_next": "llava_hf",
}  # fmt: skip


Answer = Callable[[Any, Mapping[str, Any], int], Said]  # (their request, the document, seed) -> what was said


@dataclass(frozen=True)
class Ours:
    """A model of ours, which many pruners share."""

    model: OpenModel
    is_simple = False

    @contextmanager
    def answering(self, cell: Cell) -> Iterator[Answer]:
        """What answers requests under the pruner of a cell."""
        yield Answering.of(self.model, cell)


@dataclass(frozen=True)
class Answering:
    """A model of ours under a pruner."""

    model: OpenModel
    engine: Engine
    planner: Planner
    cost: Cost

    @staticmethod
    def of(model: OpenModel, cell: Cell) -> Answering:
        engine = model.engine(cell.pruner)
        cost = Cost(dims_of(model.family.model.config), cell.pruner, model.family.info)
        return Answering(model, engine, Planner(engine, cell.request.budget, cost.planned_ratio), cost)

    def check_feasible(self, images: Sequence[Image.Image]) -> None:
        """Plan for a question about these images. Raises BudgetInfeasible."""
        inputs = self.model.prepare(images, "?")
        self.planner.plan(inputs.shape, inputs.text)

    def __call__(self, request: Any, doc: Mapping[str, Any], seed: int) -> Said:
        """Greedy, whatever temperature the task asks for. Raises BudgetInfeasible, PruningError, UsageError."""
        doc_to_messages, told = request.args[1], request.args[2]
        turn = turn_of(self.model, doc_to_messages(doc))
        length = int(told.get("max_new_tokens") or MAX_NEW_TOKENS)
        said = self._looking(turn, length, seed) if turn.images else self._reading(turn, length)
        return Said(**{**vars(said), "text": stopped(said.text, told.get("until"))})

    def _looking(self, turn: Turn, length: int, seed: int) -> Said:
        inputs = self.model.family.inputs(turn.processed(self.model))
        plan, asked = self.planner.plan(inputs.shape, inputs.text)
        tokens, trace = self.engine.generate(inputs, plan, seed=seed, max_new_tokens=length, do_sample=False)
        realised = trace.realised
        short = inputs.text_tokens + realised.entering[0]
        return Said(
            text=self.model.decode(tokens[0, short:]),
            entering=realised.entering,
            full_tokens=inputs.shape.n,
            asked_tokens=asked,
            kept=realised.kept,
            merged=realised.merged,
            flops=self.cost.by_stage(realised, plan),
            prompt_tokens=short,
            new_tokens=tokens.shape[1] - short,
        )

    @torch.no_grad()
    def _reading(self, turn: Turn, length: int) -> Said:
        """A question without images, by the native model: there is nothing to prune."""
        model = self.model.model
        inputs = turn.processed(self.model).to(model.device)
        asked = inputs["input_ids"].shape[1]
        tokens = model.generate(**inputs, max_new_tokens=length, do_sample=False)
        entering = (0,) * len(self.model.family.decoder.layers)
        return Said(
            self.model.decode(tokens[0, asked:]), entering, prompt_tokens=asked, new_tokens=tokens.shape[1] - asked
        )
