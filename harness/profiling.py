"""The profile of a request: a trace of the unpruned model and one of the method, on the sample with most tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from harness.bench import Sources, open_bench
from harness.errors import UsageError
from harness.measure.clock import StageClock, default_backend
from harness.measure.machine import machine
from harness.measure.profile import profile_arms
from harness.measure.traces import PROFILE, OperatorTime, StageTime, read_events, stage_table, top_operators
from harness.models.loading import open_model
from harness.request import Request
from harness.timing import arms_of, cases_of

ARMS = ("base", "pruned")


def sources_opened_once() -> Sources:
    """Sources that keep a model open for whoever asks for it again: a run, then its profile."""
    return Sources(model=cache(open_model))


def profile_request(request: Request, folder: Path, sources: Sources | None = None) -> None:
    """Trace both arms of a request into a folder. Raises what opening and planning raise."""
    bench = open_bench(request, sources)
    cell = bench.cell(request)
    subject = bench.subject(cell)
    cases = cases_of(subject)
    key = max(cases, key=lambda one: cases[one].inputs.shape.n + cases[one].inputs.text_tokens)
    facts = {"run_id": cell.spec.run_id, "title": cell.title, "shape_key": key, "machine_id": machine().id}
    arms = dict(zip(ARMS, arms_of(subject, cases)[key], strict=True))
    profile_arms(arms, folder, StageClock(default_backend(subject.answering.model.device)), facts)


@dataclass(frozen=True)
class Profile:
    """What a folder of traces says. title, shape_key: of the run and sample; stages, operators: arm -> rows."""

    title: str
    shape_key: str
    stages: Mapping[str, list[StageTime]]
    operators: Mapping[str, list[OperatorTime]]


def read_profile(folder: Path, top: int, middle: Callable[[Iterable[float]], float] = median) -> Profile:
    """The traces of both arms, and the `top` operators of each. Raises UsageError where the folder holds no profile."""
    facts_file = folder / PROFILE
    if not facts_file.is_file():
        raise UsageError(f"no profile in {folder}; make one with: harness run --method NAME --profile {folder}")
    facts = json.loads(facts_file.read_text())
    stages, operators = {}, {}
    for arm, names in facts["traces"].items():
        missing = [name for name in names if not (folder / arm / name).is_file()]
        if missing:
            raise UsageError(f"{folder / arm} lacks {', '.join(missing)}; make the profile again")
        events = [event for name in names for event in read_events(folder / arm / name)]
        stages[arm] = stage_table(events, facts["measured_ms"][arm], middle)
        operators[arm] = top_operators(events, top)
    return Profile(facts["title"], facts["shape_key"], stages, operators)
