"""Traces of both arms with torch's profiler: ranges vit, projector, select and llm inside each prefill.

FOLDER/ARM/*.pt.trace.json opens in Perfetto and in TensorBoard with torch-tb-profiler (`--logdir FOLDER`, one run an
arm). FOLDER/profile.json names them and holds what the same stages took without the profiler, in turns with the traced
ones, so that a reader can tell the profiler's own cost from the model's. `harness profile show` reads both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule, tensorboard_trace_handler

from harness.latency.clock import StageClock, default_backend
from harness.latency.machine import machine
from harness.latency.session import arms_of, cases_of
from harness.latency.traces import PREFILL, PROFILE
from harness.records.records import ARMS, SHORT_STAGES
from harness.request.opening import Sources, open_bench
from harness.request.request import Request

CYCLES, TIMED, TRACED = 8, 3, 3  # each cycle: timed repetitions, then one that the profiler warms up with, traced ones


class RangeClock:
    """A clock that measures nothing and leaves a named range in the trace."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        with record_function(range_of(name)):
            yield


def range_of(stage: str) -> str:
    """The name of a stage's range in a trace."""
    return SHORT_STAGES.get(stage, stage)


def profile_arms(
    arms: Mapping[str, Callable[[Any], Any]], folder: Path, clock: StageClock, facts: Mapping[str, Any]
) -> None:
    """Write a trace of each arm and profile.json. arms: name -> a prefill that marks its stages on the clock given.

    clock: times the repetitions without the profiler. facts: plain JSON kept beside (method, shape, machine).
    """
    measured, traces = {}, {}
    for name, run in arms.items():
        for _ in range(TIMED):
            _timed(run, clock)  # warms up
        traces[name], times = _trace(run, folder / name, name, clock)
        measured[name] = {range_of(stage): [one.get(stage, 0.0) for one in times] for stage in times[0]}
    document = {**facts, "measured_ms": measured, "traces": traces}
    (folder / PROFILE).write_text(json.dumps(document, indent=1) + "\n")


def _timed(run: Callable[[Any], Any], clock: StageClock) -> dict[str, float]:
    clock.start()
    run(clock)
    clock.stop()
    return clock.times_ms()


def _trace(
    run: Callable[[Any], Any], folder: Path, arm: str, clock: StageClock
) -> tuple[list[str], list[dict[str, float]]]:
    """The names of one trace a cycle, and the times of the repetitions between them."""
    folder.mkdir(parents=True, exist_ok=True)
    before, times = set(folder.iterdir()), []
    for _ in range(CYCLES):
        times += [_timed(run, clock) for _ in range(TIMED)]
        with profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])],
            schedule=schedule(wait=0, warmup=1, active=TRACED, repeat=1),
            on_trace_ready=tensorboard_trace_handler(str(folder), worker_name=arm),
        ) as profiler:
            for _ in range(1 + TRACED):
                _ranged(run)
                profiler.step()
    return sorted(path.name for path in set(folder.iterdir()) - before), times


def _ranged(run: Callable[[Any], Any]) -> None:
    with record_function(PREFILL):
        run(RangeClock())
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def profile_request(request: Request, folder: Path, sources: Sources | None = None) -> None:
    """Trace both arms of a request into a folder. Raises what opening and planning raise."""
    bench = open_bench(request, sources)
    cell = bench.cell(request)
    run = bench.open(cell)
    cases = cases_of(run)
    key = max(cases, key=lambda one: cases[one].inputs.shape.n + cases[one].inputs.text_tokens)
    facts = {"run_id": cell.spec.run_id, "title": cell.title, "shape_key": key, "machine_id": machine().id}
    arms = dict(zip(ARMS, arms_of(run, cases)[key], strict=True))
    profile_arms(arms, folder, StageClock(default_backend(bench.model.device)), facts)
