"""The timing pass: the method and no pruning side by side on a few samples that stand for all shapes of a run.

Latency depends on shapes, not on what a picture shows, so 16 samples spread over image sizes and question lengths are
enough. One session runs in this process; several run in a fresh process each, since a process's luck (memory layout,
clocks) is part of what an interval must cover.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from harness.latency.clock import StageClock, default_backend
from harness.latency.protocol import Arm, DeviceRow, Protocol, TimedCase, WarmUp, measure_pairs, preprocess_rows
from harness.latency.resources import resource_rows
from harness.models.clock import Clock
from harness.models.engine import Engine, Prefill
from harness.records.errors import HarnessError, Interrupted, UndecodableImage
from harness.records.progress import Stop
from harness.records.records import LatencyRow, ResourceRow, Sample, sample_seed
from harness.request.open_run import OpenRun
from harness.request.opening import Bench, Foreign, Sources, open_bench
from harness.request.options import RunOptions
from harness.request.request import Request
from methods.base import Plan

SAMPLES = 16  # timed
QUICK_SECONDS, QUICK_PAIRS = 30.0, 60  # the default without an accelerator: whichever bound is met first
Row = LatencyRow | ResourceRow
T = TypeVar("T")


def protocol_for(options: RunOptions) -> Protocol:
    """The bounds of a timing pass: the user's; else what a published row needs; on a CPU what is quick."""
    pairs, sessions, minutes = options.pairs, options.sessions, options.minutes
    if pairs is None and minutes is None:
        if options.device != "cpu":
            default = Protocol.default(True, QUICK_SECONDS)
            return Protocol(pairs=default.pairs, sessions=sessions or default.sessions)
        return Protocol(pairs=QUICK_PAIRS, seconds=QUICK_SECONDS, sessions=sessions or 1)
    return Protocol(pairs=pairs, seconds=None if minutes is None else minutes * 60, sessions=sessions or 1)


def time_session(run: OpenRun, protocol: Protocol, stop: Stop, loops: bool = True) -> list[Row]:
    """The rows of one session in this process; loops: throughput and energy too, which take seconds an arm.

    Raises Interrupted as soon as `stop` says so; nothing is kept then.
    """
    session = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}-{os.getpid()}"
    cases = cases_of(run)
    resources: list[ResourceRow] = []

    def observe(row: WarmUp | DeviceRow) -> None:
        resources.extend(row.resources())

    arms = arms_of(run, cases, stop)
    clock = StageClock(default_backend(run.bench.model.device))
    rows: list[Row] = [*measure_pairs(arms, protocol, clock, session, observe)]
    rows += preprocess_rows({key: partial(_prepared, run.bench, case.sample) for key, case in cases.items()}, session)
    return rows + resources + resource_rows(run, cases, arms, session, loops)


def arms_of(run: OpenRun, cases: Mapping[str, TimedCase], stop: Stop = lambda: False) -> Mapping[str, tuple[Arm, Arm]]:
    """Shape key -> (base, pruned): each takes a clock and runs the span that is timed. They raise Interrupted."""
    return {
        key: (
            partial(_prefill, run.base, case, case.full, 0, stop),
            partial(_prefill, run.engine, case, case.plan, sample_seed(run.seed, case.sample.id), stop),
        )
        for key, case in cases.items()
    }


def cases_of(run: OpenRun) -> Mapping[str, TimedCase]:
    """Shape key -> case, such as "8x8+21": units of each image, text tokens. At most 16.

    In native mode what is kept depends on the picture, so every sample is a case of its own.
    """
    benchmark, cases = run.bench.benchmark, dict[str, TimedCase]()
    for number, sample in enumerate(spread(run.bench.samples, SAMPLES, lambda one: len(benchmark.prompt(one)))):
        try:
            inputs = _prepared(run.bench, sample)
        except UndecodableImage:
            continue
        if inputs is None:
            continue  # a question without an image
        plan, asked = run.planner.plan(inputs.shape, inputs.text)
        key = ",".join(f"{rows}x{columns}" for rows, columns in inputs.shape.grids) + f"+{inputs.text_tokens}"
        full = Plan({}, (inputs.shape.n,) * inputs.shape.llm_layers)
        cases.setdefault(key if asked is not None else f"{key}#{number}", TimedCase(sample, inputs, plan, full))
    return cases


def spread(samples: Sequence[Sample], count: int, measure: Callable[[Sample], Any]) -> list[Sample]:
    """At most `count` samples, evenly spaced in the order of `measure`; ties in the samples' order."""
    ordered = sorted(samples, key=measure)
    if len(ordered) <= count:
        return ordered
    return [ordered[round(place * (len(ordered) - 1) / (count - 1))] for place in range(count)]


def _prefill(engine: Engine, case: TimedCase, plan: Plan, seed: int, stop: Stop, clock: Clock) -> Prefill:
    if stop():
        raise Interrupted("stopped while timing; every answer is kept")
    return engine.prefill(case.inputs, plan, seed, clock)


def _prepared(bench: Bench, sample: Sample) -> Any:
    return bench.benchmark.inputs(sample, bench.model)


POLL_SECONDS = 0.2


def time_in_fresh_process(request: Request, protocol: Protocol, stop: Stop, foreign: Foreign) -> list[Row]:
    """The rows of one session. foreign: as in `Sources`. Raises Interrupted when told to stop, HarnessError."""
    [rows] = in_fresh_process(partial(_session, request, protocol, foreign), stop)
    return rows


def _session(request: Request, protocol: Protocol, foreign: Foreign, stop: Stop) -> Iterator[list[Row]]:
    bench = open_bench(request, Sources(foreign=foreign))
    yield time_session(bench.open(bench.cell(request)), protocol, stop)


def in_fresh_process(work: Callable[[Stop], Iterable[T]], stop: Stop) -> Iterator[T]:
    """Yield the results of `work` as they come, from a process of its own, where it is never told to stop.

    work: anything that can be pickled. Raises Interrupted when told to stop, the HarnessError that ended the work, or
    one that says that the process died.
    """
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_send, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            while not ours.poll(POLL_SECONDS):
                if stop():
                    raise Interrupted("stopped while timing; everything finished before is kept")
            found, problem = ours.recv()
            if problem is not None:
                raise problem
            if found is None:
                return
            yield found
    except EOFError:
        process.join()
        raise HarnessError(
            f"a timing process ended with code {process.exitcode} and no result; run the same command again, it goes on"
        ) from None
    finally:
        process.terminate()
        process.join()


def _send(connection: Connection, work: Callable[[Stop], Iterable[Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    problem = None
    try:
        for found in work(lambda: False):
            connection.send((found, None))
    except HarnessError as error:
        problem = error
    connection.send((None, problem))
