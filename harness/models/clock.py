"""A clock as the engine needs it; harness/latency/clock.py has one that measures."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Clock(Protocol):
    """What the engine needs of a clock: nested stages, exclusive time."""

    def stage(self, name: str) -> AbstractContextManager[None]: ...


class Untimed:
    """A clock that measures nothing."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()
