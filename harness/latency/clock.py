"""Where the time of one repetition goes, by stage, without a synchronisation inside it.

A clock is a list of marks. Each mark says which stage runs from then on, so the stretch between two marks belongs to
exactly one stage: entering an inner stage closes the outer one's stretch, leaving it opens a new one. Stages are
therefore exclusive, and what no stage claims is the residual: total - sum(stages).

    clock.start(); answer = prefill(clock); clock.stop(); clock.times_ms()   # {"vit": ..., "total": ...}

Two backends: host time where an operation has ended when its call returns (CPU), and events on the device's stream
where it has not. One synchronisation precedes the first mark and one follows the last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import fsum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

TOTAL = "total"
HOST_BOUND_EXCESS = 0.05  # host wall time above the events' total by more than this share: the host is the limit
_NO_STAGE = ""


class Backend(Protocol):
    """Takes marks in time. kind: what the marks are, stored with every row."""

    kind: str

    def mark(self) -> Any:
        """A point in time, taken without waiting for the device."""

    def elapsed_ms(self, earlier: Any, later: Any) -> float:
        """Milliseconds between two marks, once the device has passed both."""

    def synchronise(self) -> None:
        """Wait until the device has done everything asked of it."""


class PerfCounterBackend:
    """Host time. Right where every operation has ended when its call returns, as on a CPU."""

    kind = "perf_counter_ns"

    def __init__(self, now_ns: Callable[[], int] = time.perf_counter_ns):
        self._now_ns = now_ns

    def mark(self) -> int:
        return self._now_ns()

    def elapsed_ms(self, earlier: int, later: int) -> float:
        return (later - earlier) / 1e6

    def synchronise(self) -> None:
        return None


class DeviceEventBackend:
    """Events on the accelerator's current stream.

    new_event and synchronise stand in for torch's in tests. Raises RuntimeError when this machine has no accelerator:
    torch.Event can be built there, but it cannot be recorded.
    """

    kind = "device_event"

    def __init__(
        self, new_event: Callable[[], Any] | None = None, synchronise: Callable[[], None] | None = None
    ) -> None:
        import torch

        if new_event is None and not torch.accelerator.is_available():
            raise RuntimeError("device events need an accelerator, this machine has none; use PerfCounterBackend()")
        self._new_event = new_event or _timing_event
        self._synchronise = synchronise or torch.accelerator.synchronize

    def mark(self) -> Any:
        event = self._new_event()
        event.record()
        return event

    def elapsed_ms(self, earlier: Any, later: Any) -> float:
        return earlier.elapsed_time(later)

    def synchronise(self) -> None:
        self._synchronise()


def _timing_event() -> torch.Event:
    import torch

    return torch.Event(device=torch.accelerator.current_accelerator(), enable_timing=True)


def default_backend(device: str | torch.device | None = None) -> Backend:
    """The backend for a model on `device` (None: the accelerator if there is one)."""
    import torch

    on_host = torch.device(device).type == "cpu" if device is not None else not torch.accelerator.is_available()
    return PerfCounterBackend() if on_host else DeviceEventBackend()


class StageClock:
    """Times one repetition after another; `start` forgets the one before.

    wall_now_ns: the host clock beside the backend (it includes the last wait for the device).
    """

    def __init__(self, backend: Backend, wall_now_ns: Callable[[], int] = time.perf_counter_ns):
        self._backend = backend
        self._wall_now_ns = wall_now_ns
        self._marks: list[tuple[str, Any]] = []
        self._running: list[str] = []
        self._wall_ns = (0, 0)

    @property
    def kind(self) -> str:
        return self._backend.kind

    def start(self) -> None:
        """Wait for the device, then begin a repetition."""
        self._backend.synchronise()
        self._marks, self._running = [], [_NO_STAGE]
        self._wall_ns = (self._wall_now_ns(), 0)
        self._mark()

    def stop(self) -> None:
        """End the repetition, then wait for the device."""
        assert self._running == [_NO_STAGE], f"stop() inside the stages {self._running[1:]}, or without start()"
        self._mark()
        self._running = []
        self._backend.synchronise()
        self._wall_ns = (self._wall_ns[0], self._wall_now_ns())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time spent inside belongs to `name`, except inside a stage nested in it."""
        assert self._running, "stage() outside start() and stop()"
        assert name not in (_NO_STAGE, TOTAL), f"{name!r} is no name for a stage"
        self._running.append(name)
        self._mark()
        try:
            yield
        finally:
            self._running.pop()
            self._mark()

    def times_ms(self) -> dict[str, float]:
        """Exclusive milliseconds of each stage that ran, in order of first entry, then "total"."""
        assert self._marks and not self._running, "times_ms() before stop()"
        times: dict[str, float] = {}
        for (stage, begin), (_, end) in pairwise(self._marks):
            if stage != _NO_STAGE:
                times[stage] = times.get(stage, 0.0) + self._backend.elapsed_ms(begin, end)
        times[TOTAL] = self._backend.elapsed_ms(self._marks[0][1], self._marks[-1][1])
        return times

    def host_s(self) -> float:
        """Seconds on the host's clock, for deadlines outside repetitions."""
        return self._wall_now_ns() / 1e9

    def wall_ms(self) -> float:
        """Host milliseconds from the start to the device's last operation."""
        begin, end = self._wall_ns
        return (end - begin) / 1e6

    def _mark(self) -> None:
        self._marks.append((self._running[-1], self._backend.mark()))


def residual_ms(times: dict[str, float]) -> float:
    """What no stage claims: total - sum(stages)."""
    return times[TOTAL] - fsum(ms for stage, ms in times.items() if stage != TOTAL)


def is_host_bound(wall_ms: float, total_ms: float) -> bool:
    """Whether the host, not the device, set the pace: its wall time exceeds the device's by more than 5 %."""
    return wall_ms > total_ms * (1 + HOST_BOUND_EXCESS)
