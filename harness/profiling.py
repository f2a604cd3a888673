"""The profile of a request: a trace of the unpruned model and one of the method, on the sample with most tokens."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from harness.measure.clock import StageClock, default_backend
from harness.measure.machine import machine
from harness.measure.profile import profile_arms
from harness.models.loading import open_model
from harness.request.opening import Sources, open_bench
from harness.request.request import Request
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
