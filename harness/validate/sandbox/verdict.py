"""What a method file may use while it is judged, and what comes of it. Plain data of the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MIB = 1024**2
JUDGED, UNBUILDABLE, STOPPED = "judged", "unbuildable", "stopped"


@dataclass(frozen=True)
class Limits:
    """What one file may use. seconds: on the clock and, apart from it, of the processor, from its first line on.

    memory_bytes: address space beyond what the harness takes itself. written_bytes: of each file in its folder.
    printed_bytes: on stdout and stderr together. source_bytes: of the method file itself.
    """

    seconds: float = 600.0
    memory_bytes: int = 4096 * MIB
    written_bytes: int = MIB
    printed_bytes: int = MIB
    source_bytes: int = MIB


@dataclass(frozen=True)
class Verdict:
    """What became of one file. how: "judged" (rows hold its checks), "unbuildable" or "stopped" (reason says why).

    rows: checks as `CheckResult` has them, "method" added; printed: the end of what the file printed.
    """

    target: str
    how: str
    reason: str = ""
    rows: tuple[Mapping[str, Any], ...] = ()
    printed: str = ""
