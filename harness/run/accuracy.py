"""The accuracy pass: how one question becomes one record, under a pruner or without its images.

A run's code identity walks the imports of this file (harness/records/provenance.py). Logs, the store and timing
cannot change an answer and are not imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from harness.benchmarks.targets import recall_of_target
from harness.models.loading import OpenModel
from harness.records.errors import HarnessError, UndecodableImage
from harness.records.records import BLIND, Realised, Record, Sample, sample_seed
from harness.request.open_run import OpenRun
from methods.base import PruningError

if TYPE_CHECKING:
    from harness.models.families.family import Inputs
    from harness.request.opening import Bench, Cell

Answer = Callable[[Sample], Record]
Answerer = Callable[["Bench", "Cell"], AbstractContextManager[Answer]]  # what answers the questions of a cell


def answerer_of(bench: Bench) -> Answerer:
    """The benchmark's own answerer where it has one, else `pruned`."""
    return bench.benchmark.answerer or pruned


@contextmanager
def pruned(bench: Bench, cell: Cell) -> Iterator[Answer]:
    """Answer under the pruner of a cell."""
    yield partial(answer, bench.open(cell))


@contextmanager
def blind(bench: Bench, cell: Cell) -> Iterator[Answer]:
    """Answer without images, unpruned: no visual token enters any layer.

    What a model gets right blind, the benchmark gives away in its words; a pruner can lose no more than the rest. Its
    RA is that of an image of no tokens at all: the floor under every method's.
    """
    yield partial(answer_blind, bench)


def without_images(cell: Cell) -> Cell:
    """The cell of the blind control in place of an unpruned one."""
    return replace(cell, spec=replace(cell.spec, benchmark=cell.spec.benchmark + BLIND))


@dataclass(frozen=True)
class Generation:
    """One generated answer and the tokens behind it; the fields up to flops are those of `Record`.

    prompt_tokens: as the LLM saw the prompt. prompt_tokens, new_tokens: None where nobody counted.
    """

    prediction: str
    entering: tuple[int, ...]
    full_tokens: int = 0
    asked_tokens: int | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    merged: Mapping[str, str] = field(default_factory=dict)
    flops: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: int | None = None
    new_tokens: int | None = None

    @classmethod
    def measured(cls, prediction: str, realised: Realised, **others: Any) -> Generation:
        """With what a forward pass really ran."""
        return cls(prediction, realised.entering, kept=realised.kept, merged=realised.merged, **others)

    def record(self, sample: Sample, score: float | None, seconds: float, recall: float | None = None) -> Record:
        """The row of this answer."""
        return Record(
            sample_id=sample.id,
            cluster=sample.cluster,
            category=sample.category,
            answer=sample.answer,
            prediction=self.prediction,
            score=score,
            full_tokens=self.full_tokens,
            asked_tokens=self.asked_tokens,
            entering=self.entering,
            kept=self.kept,
            merged=self.merged,
            recall_of_target=recall,
            seconds=seconds,
            flops=self.flops,
        )


def answer(run: OpenRun, sample: Sample) -> Record:
    """The record of one sample. An image that cannot be decoded gives an error row: score 0, and it counts.

    Raises BudgetInfeasible, or HarnessError naming the sample when the method contradicts itself.
    """
    started = time.perf_counter()
    benchmark, model = run.benchmark, run.model
    try:
        images = benchmark.load_images(sample)
    except UndecodableImage as error:
        return _error_row(sample, str(error), time.perf_counter() - started)
    inputs = model.prepare(images, benchmark.prompt(sample))
    said = generate(run, inputs, sample, benchmark.max_new_tokens)
    recall = recall_of_target(sample.boxes, images[0].size, inputs.shape.grids[0], said.kept)
    return said.record(sample, benchmark.score(said.prediction, sample), time.perf_counter() - started, recall)


def generate(run: OpenRun, inputs: Inputs, sample: Sample, max_new_tokens: int) -> Generation:
    """The greedy answer to a prompt with images, under a run's pruner and budget.

    Raises BudgetInfeasible, or HarnessError naming the sample when the method contradicts itself.
    """
    plan, asked = run.planner.plan(inputs.shape, inputs.text)
    try:
        tokens, trace = run.engine.generate(
            inputs, plan, seed=sample_seed(run.seed, sample.id), max_new_tokens=max_new_tokens, do_sample=False
        )
    except PruningError as error:
        raise HarnessError(f"sample {sample.id}: {error}") from error
    short = inputs.text_tokens + trace.realised.entering[0]
    return Generation.measured(
        run.model.decode(tokens[0, short:]),
        trace.realised,
        full_tokens=inputs.shape.n,
        asked_tokens=asked,
        flops=run.cost.by_stage(trace.realised, plan),
        prompt_tokens=short,
        new_tokens=tokens.shape[1] - short,
    )


def answer_blind(bench: Bench, sample: Sample) -> Record:
    """The record of one question without its images."""
    started = time.perf_counter()
    content = [{"type": "text", "text": bench.benchmark.prompt(sample)}]
    turn = bench.model.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    said = read(bench.model, turn, bench.benchmark.max_new_tokens)
    return said.record(sample, bench.benchmark.score(said.prediction, sample), time.perf_counter() - started)


@torch.no_grad()
def read(model: OpenModel, turn: str, max_new_tokens: int) -> Generation:
    """The greedy answer to a turn of text alone, its chat template filled in, by the model's native `generate`."""
    inputs = model.processor.tokenizer(turn, return_tensors="pt", add_special_tokens=False).to(model.model.device)
    asked = inputs["input_ids"].shape[1]
    tokens = model.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return Generation(
        model.decode(tokens[0, asked:]),
        (0,) * len(model.family.decoder.layers),
        prompt_tokens=asked,
        new_tokens=tokens.shape[1] - asked,
    )


def _error_row(sample: Sample, error: str, seconds: float) -> Record:
    return Record(
        sample_id=sample.id,
        cluster=sample.cluster,
        category=sample.category,
        answer=sample.answer,
        prediction="",
        score=0.0,
        full_tokens=0,
        asked_tokens=None,
        entering=(),
        error=error,
        seconds=seconds,
    )
