"""`harness run`: one method, one model, one benchmark, one budget."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from harness.budget.spec import BudgetError, BudgetSpec
from harness.cli import options
from harness.cli.interrupts import graceful_stop
from harness.cli.printing import print_json, tell
from harness.models.quiet import quiet_profiler
from harness.records.errors import EnvironmentProblem, Interrupted, UsageError
from harness.records.figures import FAILED_BUDGET
from harness.request.settings import check_attention, check_image_backend, device_of

if TYPE_CHECKING:
    from harness.run.comparison import Comparison


def run(
    context: typer.Context,
    method: options.Method,
    settings: options.Setting = None,
    budget: options.BudgetWords = None,
    model: options.Model = "reference-a",
    revision: options.Revision = None,
    benchmark: options.BenchmarkName = "reference-quick",
    suite: options.Suite = None,
    data_dir: options.DataDir = None,
    stream: options.Stream = False,
    blind: options.Blind = False,
    seed: options.Seed = 0,
    limit: options.Limit = None,
    dtype: options.Dtype = "float32",
    device: options.Device = "auto",
    attention: options.Attention = "sdpa",
    image_backend: options.ImageBackend = "pil",
    pairs: options.Pairs = None,
    sessions: options.Sessions = None,
    minutes: options.Minutes = None,
    no_timing: options.NoTiming = False,
    profile: options.Profile = None,
    store: options.Store = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Run a method, and what it is told against: the unpruned model and random choice.

    What is done is not done again; what was cut off is continued.
    """
    asked = asked_budget(method, budget)
    if blind and (method != "full" or suite is not None):
        raise UsageError("the blind control prunes nothing and runs one benchmark; use --method full --blind")
    check_attention(attention)
    check_image_backend(image_backend)
    model = f"{model}@{revision}" if revision else model
    if profile is not None:
        quiet_profiler()
    from harness.benchmarks.suites import find_suite
    from harness.cli.method_errors import method_errors
    from harness.cli.progress import Bar
    from harness.cli.stores import open_store
    from harness.cli.telling import print_suite
    from harness.latency.profiler import profile_request, sources_opened_once
    from harness.latency.session import protocol_for
    from harness.models.quiet import quiet_transformers
    from harness.request.request import Request
    from harness.run.runner import run as run_request
    from harness.run.suite import requests_of, run_suite

    preset = find_suite(suite) if suite is not None else None
    quiet_transformers()
    opened, where, sources = open_store(store), device_of(device), sources_opened_once()
    timing = None if no_timing else protocol_for(where, pairs, sessions, minutes)
    with method_errors(), _explained(where), _stoppable() as stop:
        request = Request(
            method, asked, model, benchmark, _typed(method, settings), seed, limit, dtype, where, attention,
            image_backend, data_dir=data_dir and str(data_dir), stream=stream,
        )  # fmt: skip
        run_one = partial(
            run_request, store=opened, watcher=Bar(), timing=timing, force=force, stop=stop, sources=sources, told=tell
        )
        if preset is not None:
            requests = requests_of(preset, request, _chosen(context))
            cells = run_suite(preset, requests, run_one, sources, opened.log_path)
            raise typer.Exit(0 if print_suite(preset, cells, json) else 1)
        comparison = run_one(request, unseen=blind)
        if profile is not None:
            profile_request(request, profile, sources)
    _tell(comparison, opened.path, profile, json)


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


def _typed(method: str, words: list[str] | None) -> Mapping[str, Any]:
    """The settings of a method, from words. Raises UsageError, UnknownMethod."""
    from harness.request.settings import parse_settings
    from methods import get

    name = method if ".py" in method else method.partition(":")[0]
    return parse_settings(name, get(name), words or ())


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


def asked_budget(method: str, words: str | None) -> BudgetSpec:
    """The asked budget: half the visual tokens by default, all of them for the method that prunes nothing."""
    try:
        asked = BudgetSpec.parse(words or ("100%" if method == "full" else "50%"))
    except BudgetError as error:
        raise UsageError(str(error)) from error
    if method == "full" and asked != BudgetSpec("layer_average", 1.0):
        raise UsageError(f"full keeps every visual token, got --budget {words}; leave --budget out")
    return asked


def _chosen(context: typer.Context) -> set[str]:
    """The parameters that stand in the command, which a suite leaves as they are."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
