"""One method file judged in the process that was made for it. The process does not come back from here."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from harness.records.errors import UsageError
from harness.validate.contract import check_method
from harness.validate.contract.subject import built
from harness.validate.sandbox.guards import RANDOM_STATE, Surroundings, arm, surroundings
from harness.validate.sandbox.verdict import JUDGED, STOPPED, UNBUILDABLE, Limits


@dataclass(frozen=True)
class Told:
    """Where results go, one JSON object a line: {"row": ...}, and last {"end": how, "reason": ...} as in `Verdict`.

    result: a file descriptor; token: marks a line as ours, so that what a method writes there by chance or by trying
    all descriptors is told apart.
    """

    result: int
    token: str


def be_judged(target: str, families: Sequence[str], limits: Limits, before: Surroundings, told: Told) -> NoReturn:
    """Judge "PATH.py[:Class]" and end this process.

    before: what stood where ahead of everything that this file does.
    """
    write, leave, spell = os.write, os._exit, json.dumps

    def tell(**fact: Any) -> None:
        write(told.result, (spell({"token": told.token, **fact}) + "\n").encode())

    def end(how: str, reason: str = "") -> NoReturn:
        tell(end=how, reason=reason)
        leave(0)

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    folder = str(Path(target).parent)
    os.chdir(folder)
    os.environ |= {"HOME": folder, "TMPDIR": folder}
    confine(limits)
    arm(folder, lambda reason: end(STOPPED, reason))
    try:
        pruner = built(target)
        if changed := before.difference(surroundings()):
            end(STOPPED, f"its import changes {changed}")
        for family in families:
            for checked in check_method(pruner, family):
                tell(row={"method": pruner.name, **asdict(checked)})
        if changed := before.difference(surroundings(), but=RANDOM_STATE):  # the checks themselves draw
            end(STOPPED, f"it changes {changed}")
    except UsageError as error:
        end(UNBUILDABLE, str(error))
    except MemoryError:
        end(STOPPED, f"it needs more than {limits.memory_bytes / 1024**2:.0f} MiB of memory")
    except BaseException as error:  # whatever a stranger's code raises, sys.exit included, is a reason to reject it
        end(STOPPED, f"it raises {type(error).__name__}: {error}")
    end(JUDGED)


def confine(limits: Limits) -> None:
    """Lower the limits of this process, of what it has used so far on; they cannot be raised again."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limits.seconds) + 1
    _lower(resource.RLIMIT_CPU, seconds, seconds + 1)
    _lower(resource.RLIMIT_FSIZE, limits.written_bytes, limits.written_bytes)
    _lower(resource.RLIMIT_CORE, 0, 0)
    _lower(resource.RLIMIT_NPROC, 0, 0)  # no other process or thread; a superuser is not bound by it
    taken = Path("/proc/self/statm")
    if taken.exists():
        space = int(taken.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + limits.memory_bytes
        _lower(resource.RLIMIT_AS, space, space)


def _lower(kind: int, soft: int, hard: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # some systems do not know this limit, or have a lower one
        resource.setrlimit(kind, (soft, hard))
