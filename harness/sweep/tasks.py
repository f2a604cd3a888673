"""What a sweep hands to a worker, and what comes back. Plain values: they travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from harness.latency.protocol import Protocol
from harness.records.figures import ERROR
from harness.records.run_spec import RunSpec
from harness.request.request import Request
from harness.store.shards import Shard
from harness.sweep.grid import GridCell

MISSING = "missing"  # something is left to do
STALE = "stale"  # answered by older code, and only by that
DAMAGED = "damaged"  # its log contradicts itself
BUSY = "busy"  # another process writes its log
STOPPED = "stopped"  # told to stop
DISK_FULL = "disk full"

ModelKey = tuple[str, str, str, str, str]
Paces = Mapping[tuple[str, str, str, str], float]  # (method, model, benchmark, device) -> seconds a sample


@dataclass(frozen=True)
class Survey:
    """A task: find out what is left of some cells, all of one model.

    finished: cell ids that a run of whatever code has finished. paces: what is known of the time a sample takes.
    """

    entries: tuple[GridCell, ...]
    finished: frozenset[str]
    paces: Paces


@dataclass(frozen=True)
class Finding:
    """What a survey says of one cell. state: a status of a run, MISSING, STALE or DAMAGED.

    spec: None where the cell has no identity, since its model or method cannot be opened. stored: a log says so
    already, since finished_at. samples_left: without an answer. untimed: the timing pass is left. estimate_s: rough
    seconds that are left, pace_s of a sample.
    """

    entry: GridCell
    spec: RunSpec | None
    state: str
    message: str = ""
    floor_tokens: float | None = None
    samples_left: int = 0
    untimed: bool = False
    estimate_s: float = 0.0
    pace_s: float = 0.0
    stored: bool = False
    finished_at: datetime | None = None
    dropped_bytes: int = 0


@dataclass(frozen=True)
class Job:
    """A task: answer a cell or a shard of it, or (timing) time one that is answered.

    The code may not have changed since `spec`.
    """

    request: Request
    spec: RunSpec
    timing: Protocol | None = None
    shard: Shard | None = None


@dataclass(frozen=True)
class TaskOutcome:
    """How a job ended. status: of the run, or BUSY, STOPPED, DISK_FULL. again: whether another try may help."""

    status: str
    message: str = ""
    floor_tokens: float | None = None
    seconds: float = 0.0
    again: bool = False


Task = Survey | Job
Result = tuple[Finding, ...] | TaskOutcome


def model_key(task: Task) -> ModelKey:
    """What a worker must have open to do a task."""
    request = task.entries[0].request if isinstance(task, Survey) else task.request
    return request.model, request.dtype, request.device, request.attention, request.image_backend


def pace_key(spec: RunSpec) -> tuple[str, str, str, str]:
    """What the time of a sample depends on."""
    return spec.method, spec.model, spec.benchmark, spec.device


def lost(message: str) -> TaskOutcome:
    """The outcome of a task whose worker died."""
    return TaskOutcome(ERROR, message, again=True)
