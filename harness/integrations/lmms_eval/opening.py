"""From words to lmms-eval's tasks and model classes: `lmms:TASK`, and the image backend `lmms-eval:CLASS`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from harness.integrations.lmms_eval.installed import PREFIX, VERSION, check_installed
from harness.integrations.lmms_eval.tasks import Task, open_tasks
from harness.integrations.lmms_eval.wrapped import WRAP, check_class, open_wrapped
from harness.models.loading import OpenModel, model_type, open_model, parted, resolve
from harness.records.errors import UsageError
from harness.request.opening import Sources
from harness.request.request import Request

THEIR_NAMES: Mapping[str, str] = {
    "qwen3_vl": "qwen3_vl", "qwen2_5_vl": "qwen2_5_vl", "internvl": "internvl_hf", "llava": "llava_hf",
    "llava_next": "llava_hf",
}  # fmt: skip


@dataclass(frozen=True)
class Word:
    """A task or group in a command: "lmms:[DIR/][GROUP#]TASK[:PROMPTS]", a version behind it or not.

    folder: with task files of one's own. group: whose way of asking the task is meant. prompts: a model of
    lmms-eval, "" for that of the model's family.
    """

    folder: str
    group: str
    task: str
    prompts: str

    @staticmethod
    def parse(words: str) -> Word:
        """Raises UsageError for another version than the one that is here."""
        words, _, version = words.removeprefix(PREFIX).partition("@")
        if version and version != VERSION:
            raise UsageError(f"{PREFIX}{words} was asked of lmms-eval {version}, here is {VERSION}; leave @... out")
        folder, _, rest = words.rpartition("/")
        rest, _, prompts = rest.partition(":")
        group, _, task = rest.rpartition("#")
        return Word(folder, group, task, prompts)

    def __str__(self) -> str:
        folder, group = f"{self.folder}/" if self.folder else "", f"{self.group}#" if self.group else ""
        return f"{PREFIX}{folder}{group}{self.task}" + (f":{self.prompts}" if self.prompts else "")


def open_task(request: Request) -> Task:
    """The task that a request names.

    Raises UnknownBenchmark, UsageError for a group or a task that generates no answers, BenchmarkUnavailable,
    EnvironmentProblem where lmms-eval, or what the task imports, is not here.
    """
    word, tasks = _tasks_of(request)
    if word.group and word.task in tasks:
        return tasks[word.task]
    if len(tasks) > 1 or word.group:
        raise UsageError(f"{word} is no single task but these: {', '.join(tasks)}; write {PREFIX}GROUP#TASK for one")
    return next(iter(tasks.values()))


def members(request: Request) -> list[str]:
    """The words of the tasks behind a word: itself, or those of a group. Raises as `open_task` does."""
    word, tasks = _tasks_of(request)
    if word.group or list(tasks) == [word.task]:
        return [request.benchmark]
    return [str(replace(word, group=word.task, task=name)) for name in tasks]


def open_any_model(name: str, *, image_backend: str = "pil", **settings: str) -> OpenModel:
    """`open_model`, or their class where the image backend is one: "lmms-eval" or "lmms-eval:CLASS"."""
    if not is_wrapped(image_backend):
        return open_model(name, image_backend=image_backend, **settings)
    check_installed()
    return open_wrapped(name, class_of(image_backend, name), **settings)


def is_wrapped(image_backend: str) -> bool:
    """True if an image backend is a model class of lmms-eval's."""
    return image_backend.partition(":")[0] == WRAP


def class_of(image_backend: str, model: str) -> str:
    """The class behind "lmms-eval[:CLASS]"; the one that lmms-eval has for the model's family where none is named."""
    return image_backend.partition(":")[2] or THEIR_NAMES.get(model_type(*parted(resolve(model))), "")


SOURCES = Sources(model=open_any_model, foreign={PREFIX.rstrip(":"): open_task})  # lmms-eval's beside our own


def _tasks_of(request: Request) -> tuple[Word, Mapping[str, Task]]:
    word = Word.parse(request.benchmark)
    check_installed()
    wrapped = is_wrapped(request.image_backend)
    if wrapped and request.budget.kind == "flops_ratio":
        raise UsageError("a FLOPs ratio cannot be asked of lmms-eval's own class; give tokens, or a share of them")
    theirs = class_of(request.image_backend if wrapped else "", request.model)
    with redirect_stdout(sys.stderr):
        return word, _opened(word, word.prompts or theirs, _is_simple(theirs) if wrapped else False, request.limit)


def _is_simple(their_name: str) -> bool:
    from lmms_eval.models import get_model

    check_class(their_name)
    return get_model(their_name).is_simple


@cache
def _opened(word: Word, prompts: str, is_simple: bool, limit: int | None) -> Mapping[str, Task]:
    manager = _manager(prompts, word.folder)
    tasks = open_tasks(manager, word.group or word.task, prompts=prompts, is_simple=is_simple, limit=limit)
    if word.prompts:
        tasks = [replace(one, name=one.name.replace("@", f":{word.prompts}@")) for one in tasks]
    return {task.their_name: task for task in tasks}


@cache
def _manager(prompts: str, folder: str) -> Any:
    from lmms_eval.tasks import TaskManager

    return TaskManager("ERROR", include_path=[folder] if folder else None, model_name=prompts)
