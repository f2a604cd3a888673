"""The blind control: the same questions without their images.

What a model gets right blind, the benchmark gives away in its words; a pruner can lose no more than the rest. Its RA is
that of an image of no tokens at all: the floor under every method's.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from harness.models.loading import OpenModel
from harness.records.errors import Interrupted
from harness.records.progress import Stop, Watcher
from harness.records.records import BLIND, FULL, Record, Sample
from harness.records.run_spec import RunSpec
from harness.request.opening import Bench, Sources, open_bench
from harness.request.request import Request
from harness.run.comparison import Comparison, compare
from harness.run.figures import figures_of
from harness.run.runner import Story, environment
from harness.store.database import Store
from harness.store.log_reader import RunContents, read_log
from harness.store.log_writer import RunLog


def run_blind(
    request: Request, store: Store, watcher: Watcher, stop: Stop = lambda: False, sources: Sources | None = None
) -> Comparison:
    """Answer a request's benchmark without images, and give it beside the unpruned run, which is done first.

    Raises Interrupted when told to stop; what was answered is kept.
    """
    bench = open_bench(request, sources)
    cell = bench.cell(request.control(FULL))
    full = Story(bench, store, watcher, stop, environment()).reach(cell, None)
    spec = replace(cell.spec, benchmark=cell.spec.benchmark + BLIND)
    return compare(_reach(bench, spec, store, watcher, stop, full), full, None)


def _reach(bench: Bench, spec: RunSpec, store: Store, watcher: Watcher, stop: Stop, full: RunContents) -> RunContents:
    path, here = store.log_path(spec.run_id), environment()
    done = read_log(path) if path.exists() else None
    if done is not None and done.figures is not None:
        return done
    with RunLog.open(path, spec, here) as log:
        missing = [sample for sample in bench.samples if sample.id not in log.done]
        watcher.begins("without images", len(bench.samples), len(bench.samples) - len(missing))
        try:
            for sample in missing:
                if stop():
                    raise Interrupted("stopped while answering blind; nothing is lost")
                log.append(answer_blind(bench, sample))
                watcher.advanced()
        finally:
            watcher.ends()
        contents = _read(log)
        figures = figures_of(contents, full, here.machine_id)
        log.finish(replace(figures, metrics=bench.metrics(contents.records.values())))
    store.ingest(path)
    return _read(log)


def answer_blind(bench: Bench, sample: Sample) -> Record:
    """The record of one question without its images: no visual token enters any layer."""
    started = time.perf_counter()
    prediction = say(bench.model, bench.benchmark.prompt(sample), bench.benchmark.max_new_tokens)
    return Record(
        sample_id=sample.id,
        cluster=sample.cluster,
        category=sample.category,
        answer=sample.answer,
        prediction=prediction,
        score=bench.benchmark.score(prediction, sample),
        full_tokens=0,
        asked_tokens=None,
        entering=(0,) * len(bench.model.family.decoder.layers),
        seconds=time.perf_counter() - started,
    )


@torch.no_grad()
def say(model: OpenModel, question: str, max_new_tokens: int) -> str:
    """What a model answers to a turn of text alone, greedily, by its own native `generate`."""
    turn = model.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": question}]}], add_generation_prompt=True, tokenize=False
    )
    inputs = model.processor.tokenizer(turn, return_tensors="pt", add_special_tokens=False).to(model.model.device)
    tokens = model.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return model.decode(tokens[0, inputs["input_ids"].shape[1] :])


def _read(log: RunLog) -> RunContents:
    contents = read_log(log.path)
    assert contents is not None  # RunLog.open wrote the header
    return contents
