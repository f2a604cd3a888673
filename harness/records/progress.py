"""Progress of a run, as callbacks, and the question whether to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Watcher(Protocol):
    """Someone who looks on while a run goes on. The command line shows a progress bar; tests take notes."""

    def begins(self, title: str, total: int, done: int) -> None:
        """A pass of `total` steps begins, `done` of them from an earlier session."""

    def advanced(self, steps: int = 1) -> None: ...

    def ends(self) -> None: ...


Stop = Callable[[], bool]  # whether the user asked to stop
