"""lmms-eval's tasks by name, each with the identity that a run of ours needs."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from harness.integrations.lmms_eval.answer import pictures_of, sample_id
from harness.integrations.lmms_eval.installed import VERSION
from harness.records.errors import BenchmarkUnavailable, EnvironmentProblem, UnknownBenchmark, UsageError, nearest
from harness.records.records import Sample, digest

# keys of a task's config that are left out of its revision: the rows themselves and the prompt in force count instead
PLACES = ("dataset_path", "dataset_name", "dataset_kwargs", "lmms_eval_specific_kwargs")
ANSWERING = ("adapter", "messages", "ours", "wrapped")  # the modules here that touch answers
FLAGS: Mapping[str, str] = {
    "random_fallback": r"\brandom\.(choice|choices|sample|randint|shuffle)\b",
    "judge": r"\bopenai\b|\bget_eval\b|\bget_chat_response\b|llm_judge|requests\.post",
}
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Task:
    """One of their tasks. theirs: their object; opened: another one of it, for an evaluation of its own.

    Their scoring may keep counts in its module (OCRBench does), so an object that has scored a run scores no other.
    revision: changes with the rows that are asked, the task's config and code, the prompt profile, and the bridge.
    flags: "random_fallback" where unparsed answers may be guessed, "judge" where another model may score.
    """

    theirs: Any
    opened: Callable[[], Any]
    name: str
    revision: str
    samples: tuple[Sample, ...]
    flags: tuple[str, ...]

    @property
    def their_name(self) -> str:
        return self.theirs.config.task

    def first_pictures(self) -> list[Image.Image]:
        """The pictures of the first document, [] where it has none."""
        return list(pictures_of(self.theirs.eval_docs[0]))


def open_tasks(manager: Any, word: str, *, is_simple: bool, limit: int | None) -> list[Task]:
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

    return [_task(theirs, functools.partial(again, name, theirs), limit) for name, theirs in load(word).items()]


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


def _task(theirs: Any, opened: Callable[[], Any], limit: int | None) -> Task:
    name = theirs.config.task
    if theirs.OUTPUT_TYPE != "generate_until":
        raise UsageError(f"{name} is of the kind {theirs.OUTPUT_TYPE}; the bridge takes generate_until alone")
    split = theirs.config.test_split if theirs.has_test_docs() else theirs.config.validation_split
    docs = theirs.eval_docs_no_media
    count = min(limit or len(docs), len(docs))
    scoring = _files(_callables([theirs.config.process_results, theirs.config.metric_list]))
    return Task(
        theirs,
        opened,
        f"lmms:{name}@{VERSION}",
        _revision(theirs, count),
        tuple(_sample(sample_id(split, number), doc) for number, doc in enumerate(islice(docs, count))),
        tuple(flag for flag, words in FLAGS.items() if any(re.search(words, file.read_text()) for file in scoring)),
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
            "bridge": [_sha(Path(__file__).with_name(f"{name}.py")) for name in ANSWERING],
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
    if isinstance(value, functools.partial):
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
