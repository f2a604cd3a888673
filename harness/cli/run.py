"""`harness run`: one method, one model, one benchmark, one budget."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.interrupts import graceful_stop
from harness.cli.options import given, takes
from harness.cli.printing import print_json, tell
from harness.models.quiet import quiet_profiler
from harness.records.errors import EnvironmentProblem, Interrupted, UsageError
from harness.records.figures import FAILED_BUDGET
from harness.request.options import CellWords

if TYPE_CHECKING:
    from harness.run.comparison import Comparison


@takes(CellWords)
def run(
    context: typer.Context,
    asked: CellWords,
    suite: Annotated[
        str | None, typer.Option(metavar="NAME", help="A preset of models, budgets and benchmarks.")
    ] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Without images: what the questions alone give away.")] = False,
    profile: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write traces of both arms: TensorBoard, Perfetto.")
    ] = None,
) -> None:
    """Run a method, and what it is told against: the unpruned model and random choice.

    What is done is not done again; what was cut off is continued.
    """
    if blind and (asked.method != "full" or suite is not None):
        raise UsageError("the blind control prunes nothing and runs one benchmark; use --method full --blind")
    if profile is not None:
        quiet_profiler()
    from harness.benchmarks.suites import Suite, find_suite
    from harness.cli.method_errors import method_errors
    from harness.cli.progress import Bar
    from harness.cli.stores import open_store
    from harness.cli.telling import print_suite
    from harness.integrations.lmms_eval.installed import PREFIX
    from harness.integrations.lmms_eval.opening import SOURCES, members
    from harness.latency.profiler import profile_request
    from harness.latency.session import protocol_for
    from harness.models.quiet import quiet_transformers
    from harness.request.request import Request
    from harness.run.runner import run as run_request
    from harness.run.suite import requests_of, run_suite

    preset = find_suite(suite) if suite is not None else None
    quiet_transformers()
    asked = asked.resolved()
    opened, sources = open_store(asked.store), SOURCES.opened_once()
    timing = protocol_for(asked) if asked.timing else None
    with method_errors(), _explained(asked.device), _stoppable() as stop:
        request = Request.of(asked)
        run_one = partial(
            run_request, store=opened, watcher=Bar(), timing=timing, force=asked.force, stop=stop, sources=sources,
            told=tell, unseen=blind,
        )  # fmt: skip
        tasks = members(request) if preset is None and request.benchmark.startswith(PREFIX) else ()
        if len(tasks) > 1:
            words = (request.model,), (str(request.budget),)
            preset = Suite(request.benchmark, "a group of lmms-eval's tasks", tuple(tasks), *words, "lmms-eval")
        if preset is not None:
            requests = requests_of(preset, request, given(context) - ({"benchmark"} if tasks else set()))
            cells = run_suite(preset, requests, run_one, sources, opened.log_path)
            raise typer.Exit(0 if print_suite(preset, cells, asked.json) else 1)
        comparison = run_one(request)
        if profile is not None:
            profile_request(request, profile, sources)
    _tell(comparison, opened.path, profile, asked.json)


def _stoppable() -> AbstractContextManager[Callable[[], bool]]:
    return graceful_stop(lambda: tell("stopping after this sample; Ctrl-C again stops at once"))


@contextmanager
def _explained(device: str) -> Iterator[None]:
    """Say how to go on after Ctrl-C, or without enough memory."""
    from torch import OutOfMemoryError

    try:
        yield
    except Interrupted as error:
        raise Interrupted(f"{error}\nharness: continue with: {shlex.join(['harness', *sys.argv[1:]])}") from error
    except OutOfMemoryError as error:
        raise EnvironmentProblem(
            f"{device} ran out of memory; try --dtype bfloat16 or a smaller model; what was answered is kept"
        ) from error


def _tell(comparison: Comparison, store: Path, profile: Path | None, json: bool) -> None:
    """Print what a run found and what to type next; leave with 1 if it missed its budget."""
    from harness.cli.telling import print_comparison, tell_next
    from harness.run.comparison import document

    if json:
        print_json(document(comparison))
    else:
        print_comparison(comparison)
        tell_next(comparison, store, sys.argv[1:])
    if profile is not None:
        tell(f"next: {shlex.join(['harness', 'profile', 'show', str(profile)])}")
    if comparison.run.figures.status == FAILED_BUDGET:
        tell(comparison.run.figures.message)
        raise typer.Exit(1)
