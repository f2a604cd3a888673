"""The process that has torch loaded and makes one process a method file out of itself; it runs none of them.

It reads one JSON object from stdin, {"targets": [...], "families": [...], "limits": {...}, "alone": true}, and writes
one `Verdict` as JSON a line to stdout. Started by launch.py; alone: in a namespace where all processes are ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from harness.validate.sandbox.verdict import STOPPED, Limits, Verdict

if TYPE_CHECKING:
    from harness.validate.sandbox.worker import Told

RESULT_BYTES = 4 * 1024**2  # of rows; 70 of them take 20 KB
SHOWN_BYTES = 4096  # of what a file printed
POLL_SECONDS = 0.05
GRACE_SECONDS = 0.5  # between the end of a process's words and its own


@dataclass
class Heard:
    """What has come from one process so far. status: as it ended, None while it runs."""

    pid: int
    status: int | None = None
    result: bytearray = field(default_factory=bytearray)
    printed: bytearray = field(default_factory=bytearray)

    def is_gone(self) -> bool:
        """Whether the process has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status is not None


def main() -> None:
    """Judge every target in turn."""
    asked = json.load(sys.stdin)
    limits = Limits(**asked["limits"])
    told = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    from harness.models.quiet import quiet_transformers
    from harness.validate.sandbox.guards import surroundings
    from harness.validate.sandbox.worker import be_judged

    quiet_transformers()
    before = surroundings()  # with all of torch and transformers loaded, which changes things too
    for target in asked["targets"]:
        judging = partial(be_judged, target, asked["families"], limits, before)
        verdict = judge(target, judging, limits, told, alone=asked["alone"])
        os.write(told, (json.dumps(asdict(verdict)) + "\n").encode())


def judge(target: str, judging: Callable[[Told], NoReturn], limits: Limits, told: int, alone: bool = False) -> Verdict:
    """The verdict on one file, from a process that is gone afterwards, and its group with it; alone: all others too.

    judging: what runs in that process. told: where our verdicts go, which is closed there.
    """
    from harness.validate.sandbox.worker import Told

    token = secrets.token_hex(8)
    result, result_end = os.pipe()
    printed, printed_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for standard in (1, 2):
            os.dup2(printed_end, standard)
        for ours in (told, result, printed, printed_end):
            os.close(ours)
        judging(Told(result_end, token))
    os.close(result_end)
    os.close(printed_end)
    heard = Heard(pid)
    reason = listen(heard, result, printed, limits)
    bury(heard, 0.0 if reason else GRACE_SECONDS, alone)
    os.close(result)
    os.close(printed)
    return verdict_of(target, heard, token, reason or ended_with(heard.status, limits))


def listen(heard: Heard, result: int, printed: int, limits: Limits) -> str:
    """Hear a process out; why it must be stopped, "" once it has closed its ends or is gone."""
    deadline = time.monotonic() + limits.seconds
    open_ends = {result: heard.result, printed: heard.printed}
    while open_ends:
        ready = select.select(list(open_ends), [], [], POLL_SECONDS)[0]
        if time.monotonic() > deadline:
            return f"it ran longer than {limits.seconds:g} s"
        if not ready and heard.is_gone():  # whoever else holds an end of ours has nothing to say
            return ""
        for end in ready:
            chunk = os.read(end, 65536)
            open_ends[end].extend(chunk)
            if not chunk:
                del open_ends[end]
        if len(heard.printed) > limits.printed_bytes:
            return f"it prints more than {limits.printed_bytes / 1024:.0f} KiB"
        if len(heard.result) > RESULT_BYTES:
            return f"its checks say more than {RESULT_BYTES / 1024:.0f} KiB"
    return ""


def bury(heard: Heard, grace_seconds: float, alone: bool) -> None:
    """End a process, its group and, where we are alone, whatever else there is."""
    deadline = time.monotonic() + grace_seconds
    while not heard.is_gone() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 5)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(heard.pid, signal.SIGKILL)
    if alone and os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    if not heard.is_gone():
        heard.status = os.waitpid(heard.pid, 0)[1]


def ended_with(status: int | None, limits: Limits) -> str:
    """A wait status in words."""
    assert status is not None  # it is buried
    if not os.WIFSIGNALED(status):
        return f"its process ended by itself (exit code {os.waitstatus_to_exitcode(status)}) before it was judged"
    number = os.WTERMSIG(status)
    if number == signal.SIGXCPU:
        return f"it used more than {limits.seconds:g} s of the processor"
    return f"its process was ended by {signal.Signals(number).name} before it was judged"


def verdict_of(target: str, heard: Heard, token: str, reason: str) -> Verdict:
    """What the words of a process amount to. reason: why it ended, where they do not say so."""
    printed = heard.printed[-SHOWN_BYTES:].decode(errors="replace")
    rows = []
    for line in heard.result.decode(errors="replace").splitlines():
        fact = _fact(line, token)
        if fact is None:
            return Verdict(target, STOPPED, "it writes among the results of its checks", printed=printed)
        if "end" in fact:
            return Verdict(target, fact["end"], fact["reason"], tuple(rows), printed)
        rows.append(fact["row"])
    return Verdict(target, STOPPED, reason, tuple(rows), printed)


def _fact(line: str, token: str) -> dict[str, Any] | None:
    """What a line says, None where it does not bear the token."""
    try:
        fact = json.loads(line)
    except json.JSONDecodeError:
        return None
    return fact if isinstance(fact, dict) and fact.get("token") == token else None


if __name__ == "__main__":
    main()
