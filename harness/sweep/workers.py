"""Workers of a sweep: this process, or worker processes on this machine.

Every engine offers the same few verbs, and whoever dies is replaced: the task comes back as lost, its log goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

import torch

from harness.records.progress import Stop
from harness.request.opening import Sources
from harness.sweep.tasks import ModelKey, Result, Task, lost, model_key
from harness.sweep.worker import Workshop


class Listener(Protocol):
    """Someone who hears how far each task is, by its name."""

    def begins(self, name: str, title: str, total: int, done: int) -> None: ...

    def advanced(self, name: str, steps: int) -> None: ...


class Crew(Protocol):
    """Workers, numbered from 0."""

    size: int

    def idle(self) -> Sequence[int]:
        """The workers that have no task."""

    def held(self, worker: int) -> ModelKey | None:
        """The model that a worker has open."""

    def give(self, worker: int, name: str, task: Task) -> None:
        """Give an idle worker a task."""

    def wait(self, timeout_s: float, listener: Listener) -> list[tuple[str, Result]]:
        """The tasks that have ended, by name; waits for the first one no longer than the timeout."""

    def stop(self) -> None:
        """Ask everyone to stop after the current sample. Nobody takes a task any more."""

    def close(self) -> None:
        """End every worker at once. What their logs hold stays."""


@dataclass(frozen=True)
class Named:
    """A `Watcher` of one task, which passes on what it sees."""

    name: str
    listener: Listener

    def begins(self, title: str, total: int, done: int) -> None:
        self.listener.begins(self.name, title, total, done)

    def advanced(self, steps: int = 1) -> None:
        self.listener.advanced(self.name, steps)

    def ends(self) -> None:
        return None


class Alone:
    """A crew of one: this very process. A task is done while it is waited for."""

    size = 1

    def __init__(self, store: Path, stop: Stop, sources: Sources | None = None):
        self._workshop = Workshop(store, sources)
        self._stop = stop
        self._given: tuple[str, Task] | None = None
        self._held: ModelKey | None = None

    def idle(self) -> Sequence[int]:
        return [] if self._given else [0]

    def held(self, worker: int) -> ModelKey | None:
        return self._held

    def give(self, worker: int, name: str, task: Task) -> None:
        self._given, self._held = (name, task), model_key(task)

    def wait(self, timeout_s: float, listener: Listener) -> list[tuple[str, Result]]:
        assert self._given is not None
        name, task = self._given
        result = self._workshop.do(task, Named(name, listener), self._stop)
        self._given = None
        return [(name, result)]

    def stop(self) -> None:
        """The function that it was made with says so already."""

    def close(self) -> None:
        return None


@dataclass(frozen=True)
class Start:
    """What a worker process starts with. gpus: worker i sees gpus[i % len] only. setup: called first in each."""

    store: Path
    sources: Sources | None = None
    gpus: Sequence[str] = ()
    setup: Callable[[], None] | None = None


@dataclass
class _Worker:
    """One process and the end of its pipe."""

    process: multiprocessing.process.BaseProcess
    connection: Connection
    held: ModelKey | None = None
    name: str | None = None


class Processes:
    """A crew of processes on this machine, each started with its first task."""

    def __init__(self, size: int, start: Start):
        self.size = size
        self._start = start
        self._workers: dict[int, _Worker] = {}

    def idle(self) -> Sequence[int]:
        return [i for i in range(self.size) if i not in self._workers or self._workers[i].name is None]

    def held(self, worker: int) -> ModelKey | None:
        return self._workers[worker].held if worker in self._workers else None

    def give(self, worker: int, name: str, task: Task) -> None:
        if worker not in self._workers:
            self._workers[worker] = self._hire(worker)
        at = self._workers[worker]
        at.name, at.held = name, model_key(task)
        with suppress(OSError):  # it died idle; its end of the pipe says so to `wait`
            at.connection.send((name, task))

    def wait(self, timeout_s: float, listener: Listener) -> list[tuple[str, Result]]:
        by_connection = {at.connection: number for number, at in self._workers.items()}
        ended: list[tuple[str, Result]] = []
        for connection in wait(list(by_connection), timeout_s):
            assert isinstance(connection, Connection)
            ended += self._hear(by_connection[connection], connection, listener)
        return ended

    def _hear(self, worker: int, connection: Connection, listener: Listener) -> list[tuple[str, Result]]:
        """Take one message of a worker, or notice its death."""
        try:
            word, *rest = connection.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if word == "ended":
            name, result = rest
            self._workers[worker].name = None
            return [(name, result)]
        {"begins": listener.begins, "advanced": listener.advanced}[word](*rest)
        return []

    def _bury(self, worker: int) -> list[tuple[str, Result]]:
        dead = self._workers.pop(worker)
        dead.process.join()
        dead.connection.close()
        if dead.name is None:
            return []
        return [(dead.name, lost(f"its worker ended with code {dead.process.exitcode} and no result"))]

    def stop(self) -> None:
        for at in self._workers.values():
            with suppress(OSError):  # dead already
                at.connection.send(None)

    def close(self) -> None:
        for at in self._workers.values():
            at.process.kill()
        for at in self._workers.values():
            at.process.join()
            at.connection.close()
        self._workers.clear()

    def _hire(self, worker: int) -> _Worker:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])  # torch is imported once, not by each worker
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._start, worker, self.size))
        process.start()
        theirs.close()
        return _Worker(process, ours)


@dataclass(frozen=True)
class _Told:
    """A listener at the other end of a pipe."""

    connection: Connection

    def begins(self, name: str, title: str, total: int, done: int) -> None:
        self.connection.send(("begins", name, title, total, done))

    def advanced(self, name: str, steps: int) -> None:
        self.connection.send(("advanced", name, steps))


def serve(connection: Connection, start: Start, worker: int, size: int) -> None:
    """The life of a worker: do tasks until told to stop, or until the sweep's own process is gone.

    Anything that arrives while a task is done means stop, and so does the end of the pipe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep decides
    if start.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = start.gpus[worker % len(start.gpus)]  # before a device is first touched
    set_up(start, size)
    workshop = Workshop(start.store, start.sources)
    try:
        while (given := connection.recv()) is not None:
            name, task = given
            result = workshop.do(task, Named(name, _Told(connection)), connection.poll)
            connection.send(("ended", name, result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def set_up(start: Start, size: int) -> None:
    """Make this process a worker, one of `size` that share the machine's cores."""
    if start.setup is not None:
        start.setup()
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
