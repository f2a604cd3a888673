"""lmms-eval's tasks as benchmarks, each with its identity, its answerer and their own scoring."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from harness.benchmarks import Benchmark
from harness.integrations.lmms_eval.installed import PREFIX, VERSION
from harness.integrations.lmms_eval.native import MAX_NEW_TOKENS, cluster_of, pictures_of, sample_id, say, turn_of
from harness.integrations.lmms_eval.wrapped import Wrapped, inside
from harness.integrations.lmms_metrics import outcome_of
from harness.models.loading import OpenModel
from harness.records.errors import (
    BenchmarkUnavailable,
    EnvironmentProblem,
    HarnessError,
    UnknownBenchmark,
    UsageError,
    nearest,
)
from harness.records.records import Record, Sample, digest, sample_seed
from harness.records.syntax import syntax_hash
from harness.request.opening import Bench, Cell
from harness.run.accuracy import Answer, Generation

# keys of a task's config that are left out of its revision: the rows themselves and the prompt in force count instead
PLACES = ("dataset_path", "dataset_name", "dataset_kwargs", "lmms_eval_specific_kwargs")
ANSWERING = ("native", "tasks", "wrapped")  # the modules here that touch answers
FLAGS: Mapping[str, str] = {
    "random_fallback": r"\brandom\.(choice|choices|sample|randint|shuffle)\b",
    "judge": r"\bopenai\b|\bget_eval\b|\bget_chat_response\b|llm_judge|requests\.post",
}
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@contextmanager
def answering(bench: Bench, cell: Cell) -> Iterator[Answer]:
    """Answer a task's questions under the pruner of a cell: on a model of ours, or inside a class of theirs."""
    if isinstance(bench.model, Wrapped):
        with inside(bench.model, cell) as theirs:
            yield partial(_record, bench.benchmark, theirs.say)
    else:
        yield partial(_record, bench.benchmark, partial(say, bench.open(cell)))


def _record(task: Task, said: Callable[[Any, Mapping[str, Any], Sample], Generation], sample: Sample) -> Record:
    """The record of a sample, not scored yet. Questions about one picture are one cluster."""
    started = time.perf_counter()
    request, doc = task.requests[sample.id], task.doc(sample)
    random.seed(sample_seed(0, sample.id))  # some tasks shuffle options as they ask: the same, whoever asks it when
    with redirect_stdout(sys.stderr):
        found = said(request, doc, sample)
        target = task.theirs.doc_to_target(doc)
    answer = target if isinstance(target, str) else json.dumps(target, default=str)
    sample = replace(sample, cluster=cluster_of(doc, sample.id), answer=answer)
    return found.record(sample, None, time.perf_counter() - started)


@dataclass(frozen=True)
class Task(Benchmark):
    """One of their tasks. theirs: their object; opened: another one of it, for an evaluation of its own.

    Their scoring may keep counts in its module (OCRBench does), so an object that has scored a run scores no other.
    revision: changes with the rows that are asked, the task's config and code, the prompts, and the modules here.
    prompts: whose, by lmms-eval's name for a model. flags: "random_fallback" where unparsed answers may be guessed,
    "judge" where another model may score.
    """

    theirs: Any
    opened: Callable[[], Any]
    manager: Any
    prompts: str
    is_simple: bool
    flags: tuple[str, ...]

    answerer = staticmethod(answering)

    @property
    def their_name(self) -> str:
        return self.theirs.config.task

    @cached_property
    def requests(self) -> Mapping[str, Any]:
        """Sample id -> their request."""
        random.seed(0)
        with redirect_stdout(sys.stderr):
            self.theirs.set_fewshot_seed(seed=1234)  # their evaluator's
            self.theirs.build_all_requests(limit=len(self.samples))
        return {sample_id(one.args[5], one.args[3]): one for one in self.theirs.instances}

    def doc(self, sample: Sample) -> Mapping[str, Any]:
        """The document of a sample, its pictures decoded."""
        doc_id, _, split = self.requests[sample.id].args[3:6]
        return self.theirs.dataset[split][doc_id]

    def load_image(self, sample: Sample, index: int) -> Image.Image:
        return list(pictures_of(self.doc(sample)))[index].convert("RGB")

    def prompt(self, sample: Sample) -> str:
        return self.requests[sample.id].args[0]

    def inputs(self, sample: Sample, model: OpenModel) -> Any:
        """None where the document has no picture."""
        request, doc = self.requests[sample.id], self.doc(sample)
        if not self.is_simple:
            return turn_of(model, request.args[1](doc)).inputs(model)
        images = [image.convert("RGB") for image in request.args[2](doc)]
        return model.prepare(images, request.args[0]) if images else None

    def score(self, prediction: str, sample: Sample) -> None:
        """Nothing yet: `judge` does it."""

    def metrics(self, records: Iterable[Record]) -> dict[str, float]:
        """None: `judge` gives them."""
        return {}

    def judge(self, records: Mapping[str, Record], folder: Path) -> tuple[Mapping[str, Record], Mapping[str, float]]:
        """Scores and metrics by their own evaluator. Raises HarnessError where the task's code fails."""
        from harness.integrations.lmms_eval.scoring import evaluate

        try:
            outcome = outcome_of(evaluate(self, records, folder), self.their_name)
        except Exception as problem:  # a task's code may raise anything
            why = f"{type(problem).__name__}: {problem}"
            raise HarnessError(
                f"lmms-eval's scoring of {self.their_name} failed ({why}); every answer is kept"
            ) from problem
        return {record.sample_id: record for record in outcome.scored(records)}, outcome.metrics

    def facts(self, model: OpenModel) -> Mapping[str, Any]:
        pixels = str(model.processor.image_processor.size)
        told = {"version": VERSION, "prompts": self.prompts, "flags": list(self.flags), "pixels": pixels}
        return {"lmms_eval": told}

    def notes(self) -> Sequence[str]:
        if not self.flags:
            return ()
        return (f"{self.their_name} may score by {' and '.join(self.flags)}: no ranked preset takes it",)


def open_tasks(manager: Any, word: str, *, prompts: str, is_simple: bool, limit: int | None) -> list[Task]:
    """The task of that name, or those of the group. manager: lmms-eval's TaskManager.

    Raises UnknownBenchmark, UsageError for tasks that generate no answers, BenchmarkUnavailable where the data cannot
    be had, EnvironmentProblem where the task's code imports what is not here.
    """
    if word not in manager.all_tasks:
        raise UnknownBenchmark(f"lmms-eval has no task {word!r}; nearest: {nearest(word, manager.all_tasks)}")

    def load(asked: str) -> dict[str, Any]:
        return dict(_leaves(_loaded(manager, asked, "simple" if is_simple else "chat")))

    def again(name: str, theirs: Any) -> Any:
        """The task alone, unless its group asks it in another way."""
        alone = load(name)[name] if name != word and name in manager.all_tasks else None
        return alone if alone is not None and _config(alone) == _config(theirs) else load(word)[name]

    how = {"manager": manager, "prompts": prompts, "is_simple": is_simple}
    return [_task(theirs, limit, opened=partial(again, name, theirs), **how) for name, theirs in load(word).items()]


def _loaded(manager: Any, word: str, kind: str) -> Mapping[Any, Any]:
    from lmms_eval.tasks import get_task_dict
    from tenacity import RetryError

    try:
        return get_task_dict([word], manager, kind)
    except ImportError as error:
        raise EnvironmentProblem(f"{word} imports what is not here ({error}); docs/lmms.md has a list") from error
    except RetryError as error:
        why = str(error.last_attempt.exception()).partition("\n")[0]
        raise BenchmarkUnavailable(
            f"the data of {word} are neither in the local cache nor to be had ({why}); fetch them where there is a "
            "network, or write a task file for a mirror (docs/lmms.md)"
        ) from error


def _leaves(found: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for task in found.values():
        yield from _leaves(task) if isinstance(task, Mapping) else ((task.config.task, task),)


def _task(theirs: Any, limit: int | None, **how: Any) -> Task:
    name = theirs.config.task
    if theirs.OUTPUT_TYPE != "generate_until":
        raise UsageError(f"{name} is of the kind {theirs.OUTPUT_TYPE}; generate_until alone can be answered here")
    split = theirs.config.test_split if theirs.has_test_docs() else theirs.config.validation_split
    docs = theirs.eval_docs_no_media
    count = min(limit or len(docs), len(docs))
    scoring = _files(_callables([theirs.config.process_results, theirs.config.metric_list]))
    code = "\n".join(file.read_text() for file in scoring)
    return Task(
        name=f"{PREFIX}{name}@{VERSION}",
        title=f"{name}, a task of lmms-eval {VERSION}",
        revision=_revision(theirs, count),
        licence="see the data set's card",
        max_new_tokens=int((theirs.config.generation_kwargs or {}).get("max_new_tokens") or MAX_NEW_TOKENS),
        samples=tuple(_sample(sample_id(split, number), doc) for number, doc in enumerate(islice(docs, count))),
        chance={},
        theirs=theirs,
        flags=tuple(flag for flag, words in FLAGS.items() if re.search(words, code)),
        **how,
    )


def _sample(name: str, doc: Mapping[str, Any]) -> Sample:
    return Sample(name, name, str(doc.get("category") or ""), "", "", ())


def _revision(theirs: Any, count: int) -> str:
    return digest(
        {
            "rows": rows_hash(theirs.eval_docs, count),
            "config": _config(theirs),
            "prompt": json.dumps(_in_force(theirs.lmms_eval_specific_kwargs), sort_keys=True, default=str),
            "code": [_sha(file) for file in _files(_callables(vars(theirs.config)))],
            "answering": [syntax_hash(Path(__file__).with_name(f"{name}.py")) for name in ANSWERING],
        }
    )


def _config(theirs: Any) -> str:
    config = {key: value for key, value in theirs.dump_config().items() if key not in PLACES}
    return ADDRESS.sub("", json.dumps(config, sort_keys=True, default=str))


def _in_force(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a prompt is made with, the blocks of other models left out."""
    return {key: value for key, value in (kwargs or {}).items() if not isinstance(value, Mapping)}


def rows_hash(docs: Any, count: int) -> str:
    """sha256 over the first rows of a data set, pictures as the bytes that are stored."""
    total = hashlib.sha256()
    for row in islice(_rows(docs), count):
        total.update(json.dumps(row, sort_keys=True, default=_plain).encode())
    return total.hexdigest()


def _rows(docs: Any) -> Iterator[Mapping[str, Any]]:
    if not hasattr(docs, "with_format"):
        yield from docs
        return
    for block in docs.with_format("arrow").iter(batch_size=32):
        yield from block.to_pylist()


def _plain(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def _callables(value: Any) -> Iterator[Callable[..., Any]]:
    if isinstance(value, partial):
        yield value.func
    elif callable(value):
        yield value
    elif isinstance(value, Mapping):
        yield from (one for item in value.values() for one in _callables(item))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield from (one for item in value for one in _callables(item))


def _files(functions: Iterator[Callable[..., Any]]) -> list[Path]:
    """The source files of functions, sorted; those made in no file left out."""
    found = {inspect.getsourcefile(inspect.unwrap(function)) for function in functions if inspect.isfunction(function)}
    return sorted(Path(file) for file in found if file is not None)


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
