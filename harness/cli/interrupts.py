"""Ctrl-C, twice: the first asks to stop after the current sample, the second stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from harness.records.errors import Interrupted


@contextmanager
def graceful_stop(said: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Within it, SIGINT is a request. Gives a function that tells whether one came.

    said: called at the first request, from the signal handler. The second raises Interrupted wherever it strikes.
    Works in the main thread only, as Python's signals do. The previous handler is put back.
    """
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise Interrupted("stopped at once; every finished sample is kept")
        asked = True
        said()

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
