"""A crew of Ray actors: on this machine alone, or on a cluster whose machines share the store's folder.

On one machine nothing listens on any address but the loopback one; a cluster is joined with Ray's token. The
dashboard and usage reports are off. An actor that dies is lost like any other worker: its task goes on elsewhere,
from its log.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from harness.records.errors import EnvironmentProblem
from harness.sweep.tasks import ModelKey, Result, Task, lost, model_key
from harness.sweep.worker import Workshop
from harness.sweep.workers import Listener, Named, Start, set_up

Event = tuple[Any, ...]  # ("begins" | "advanced", what the listener's method of that name takes)


class Hand:
    """The actor: it does one task in one thread, and answers questions in another."""

    def __init__(self, start: Start, size: int):
        set_up(start, size)
        self._workshop = Workshop(start.store, start.sources)
        self._events: list[Event] = []
        self._stopping = False

    def do(self, name: str, task: Task) -> Result:
        return self._workshop.do(task, Named(name, self), lambda: self._stopping)

    def begins(self, name: str, title: str, total: int, done: int) -> None:
        self._events.append(("begins", name, title, total, done))

    def advanced(self, name: str, steps: int) -> None:
        self._events.append(("advanced", name, steps))

    def news(self) -> list[Event]:
        """What happened since this was last asked."""
        count = len(self._events)
        news, self._events[:count] = self._events[:count], []
        return news

    def stop(self) -> None:
        self._stopping = True


@dataclass
class _Actor:
    """One actor and what it works on."""

    handle: Any
    held: ModelKey | None = None
    name: str | None = None
    result: Any = field(default=None)


class RayCrew:
    """A crew of Ray actors, each started with its first task. gpus: the share of a GPU that each takes."""

    def __init__(self, size: int, start: Start, address: str | None = None, gpus: float = 0.0):
        self.size = size
        self._start = start
        self._ray = _connect(size, address)
        self._gpus = gpus
        self._actors: dict[int, _Actor] = {}

    def idle(self) -> Sequence[int]:
        return [i for i in range(self.size) if i not in self._actors or self._actors[i].name is None]

    def held(self, worker: int) -> ModelKey | None:
        return self._actors[worker].held if worker in self._actors else None

    def give(self, worker: int, name: str, task: Task) -> None:
        if worker not in self._actors:
            kind = self._ray.remote(num_cpus=1, num_gpus=self._gpus, max_concurrency=2)(Hand)
            self._actors[worker] = _Actor(kind.remote(self._start, self.size))
        at = self._actors[worker]
        at.name, at.held, at.result = name, model_key(task), at.handle.do.remote(name, task)

    def wait(self, timeout_s: float, listener: Listener) -> list[tuple[str, Result]]:
        busy = {at.result: worker for worker, at in self._actors.items() if at.name is not None}
        ready, _ = self._ray.wait(list(busy), num_returns=1, timeout=timeout_s)
        for worker in busy.values():
            self._listen(self._actors[worker], listener)
        return [self._take(busy[result]) for result in ready]

    def _listen(self, at: _Actor, listener: Listener) -> None:
        question = at.handle.news.remote()
        with suppress(self._ray.exceptions.RayActorError):  # its task says so too
            if self._ray.wait([question], timeout=1.0)[0]:
                for word, *rest in self._ray.get(question):
                    {"begins": listener.begins, "advanced": listener.advanced}[word](*rest)

    def _take(self, worker: int) -> tuple[str, Result]:
        """The result of a task that has ended, or word of the actor's death."""
        at = self._actors[worker]
        assert at.name is not None
        try:
            name, result, at.name = at.name, self._ray.get(at.result), None
        except self._ray.exceptions.RayError as problem:
            del self._actors[worker]
            return at.name, lost(f"its worker was lost ({type(problem).__name__})")
        return name, result

    def stop(self) -> None:
        for at in self._actors.values():
            at.handle.stop.remote()

    def close(self) -> None:
        for at in self._actors.values():
            self._ray.kill(at.handle)
        self._actors.clear()
        self._ray.shutdown()


def _connect(size: int, address: str | None) -> Any:
    """The ray module, connected. Raises EnvironmentProblem."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  Ray's own 15 lets everything else go first
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # what makes it listen on the loopback address alone
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as problem:
        raise EnvironmentProblem("--engine ray needs Ray: pip install 'visual-token-pruning[ray]'") from problem
    usual = {"include_dashboard": False, "num_cpus": size} if address is None else {"address": address}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **usual)
    except (ConnectionError, RuntimeError, ValueError) as problem:
        raise EnvironmentProblem(f"Ray did not start: {problem}; is --address right, and the token there?") from problem
    if address is None and ray.util.get_node_ip_address() != "127.0.0.1":
        ray.shutdown()
        raise EnvironmentProblem("Ray was imported before the sweep, so it would listen to other machines: start anew")
    return ray
