"""`harness bridge lmms`: any task of lmms-eval under any pruner."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.interrupts import graceful_stop
from harness.cli.options import takes
from harness.cli.printing import print_json, tell
from harness.records.errors import HarnessError, Interrupted, UsageError
from harness.records.figures import FAILED_BUDGET
from harness.request.options import CellWords, ModelOptions

if TYPE_CHECKING:
    from harness.integrations.lmms_eval.runner import Bridge
    from harness.request.request import Request
    from harness.run.comparison import Comparison

app = typer.Typer(help="Other tools' tasks under our pruners.", no_args_is_help=True)


@app.callback()
def _keep_verbs() -> None:
    """Other tools' tasks under our pruners."""


@app.command("lmms")
@takes(CellWords, "benchmark", "data_dir", "stream", "timing", "pairs", "sessions", "minutes")
def lmms(
    asked: CellWords,
    tasks: Annotated[str, typer.Option(metavar="A,B", help="Tasks or groups of lmms-eval.")],
    prompt_as: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose prompts: a model of lmms-eval. Default: the family's."),
    ] = None,
    wrap: Annotated[
        bool, typer.Option("--wrap", help="Prune inside lmms-eval's own model class, its template and pixels.")
    ] = False,
    include_path: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder with task files of your own.", exists=True)
    ] = None,
) -> None:
    """Run lmms-eval's tasks on a pruned model, one run a task, with measured budgets and the usual controls.

    What is done is not done again; what was cut off is continued.
    """
    if wrap and asked.asked_budget().kind == "flops_ratio":
        raise UsageError("a FLOPs ratio cannot be asked of lmms-eval's own class; give tokens, or a share of them")
    from harness.integrations.lmms_eval.installed import check_installed

    check_installed()
    _quiet_lmms()
    from harness.cli.method_errors import method_errors
    from harness.cli.progress import Bar
    from harness.cli.stores import open_store
    from harness.integrations.lmms_eval.runner import Bridge
    from harness.models.quiet import quiet_transformers
    from harness.request.request import Request
    from harness.run.comparison import document

    quiet_transformers()
    with method_errors(), graceful_stop(lambda: tell("stopping after this sample; Ctrl-C again stops at once")) as stop:
        request = replace(Request.of(asked), benchmark="")
        with redirect_stdout(sys.stderr):
            host, manager, names = _opened(request, wrap, prompt_as, include_path)
        bridge = Bridge(host, manager, names, open_store(asked.store), Bar(), stop)
        try:
            found, failed = _run_all(bridge, tasks.split(","), request, asked.force)
        except Interrupted as error:
            raise Interrupted(f"{error}\nharness: continue with: {shlex.join(['harness', *sys.argv[1:]])}") from error
    if asked.json:
        print_json([document(one) for one in found])
    else:
        _print(found, bridge)
    if failed:
        raise HarnessError(f"{len(failed)} of {len(failed) + len(found)} tasks failed: {'; '.join(failed)}")
    if any(one.run.figures.status == FAILED_BUDGET for one in found):
        raise typer.Exit(1)


def _quiet_lmms() -> None:
    """No log or bars of its own, and no OpenAI client that wants a key where a task file is only imported."""
    os.environ.setdefault("LOGURU_LEVEL", "ERROR")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("OPENAI_API_KEY", "none")


def _opened(request: Request, wrap: bool, prompt_as: str | None, include_path: Path | None) -> tuple[Any, Any, str]:
    """The model as lmms-eval's host, lmms-eval's list of tasks, and the name whose prompts are used."""
    from lmms_eval.tasks import TaskManager

    from harness.integrations.lmms_eval.native import THEIR_NAMES, Ours
    from harness.integrations.lmms_eval.wrapped import open_wrapped
    from harness.models.loading import model_type, open_model
    from harness.models.registry import parted, resolve

    prompt_as = prompt_as or THEIR_NAMES[model_type(*parted(resolve(request.model)))]
    if wrap:
        host = open_wrapped(request.model, prompt_as, request.dtype, request.device, request.attention)
    else:
        host = Ours(open_model(request.model, **request.part(ModelOptions)))
    folders = [str(include_path)] if include_path else None
    return host, TaskManager("ERROR", include_path=folders, model_name=prompt_as), prompt_as


def _run_all(bridge: Bridge, words: list[str], request: Request, force: bool) -> tuple[list[Comparison], list[str]]:
    """The runs, and what went wrong in the tasks that failed. Raises what went wrong where only that happened."""
    from harness.integrations.lmms_eval.tasks import open_tasks

    found: list[Comparison] = []
    failed: dict[str, Exception] = {}
    for word in words:
        with _noting(word, failed), redirect_stdout(sys.stderr):
            opened = open_tasks(bridge.manager, word, is_simple=bridge.host.is_simple, limit=request.limit)
        for task in () if word in failed else opened:
            if task.flags:
                tell(f"{task.their_name} may score by {' and '.join(task.flags)}: no ranked preset takes it")
            with _noting(task.their_name, failed):
                found.append(bridge.run(task, request, force))
    if len(failed) == 1 and not found:
        raise next(iter(failed.values()))
    return found, [f"{name}: {problem}" for name, problem in failed.items()]


@contextmanager
def _noting(name: str, failed: dict[str, Exception]) -> Iterator[None]:
    """Within it a task's code may raise anything: that is noted, and the next task goes on."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as problem:
        failed[name] = problem


def _print(found: list[Comparison], bridge: Bridge) -> None:
    from harness.cli.telling import print_comparison

    for comparison in found:
        print_comparison(comparison)
        run = comparison.run
        if run.figures.status == FAILED_BUDGET:
            tell(run.figures.message)
        tell(f"run {run.spec.run_id} is in {bridge.store.path}")
        tell(f"next: harness show {run.spec.run_id}    harness list runs")
