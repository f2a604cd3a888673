"""Why a latency row is indicative only: every reason not to publish or rank it, in words."""

from __future__ import annotations

from collections.abc import Iterable

from harness.measure.clock import PerfCounterBackend
from harness.records.records import ResourceRow

PUBLISHED_PAIRS, PUBLISHED_SESSIONS = 30, 5
WIDEST_CONTROL = 0.05  # half width of the controls' interval, as a ratio: wider ones cannot vouch for anything
THROTTLE_BITS = 4 | 8 | 32 | 64 | 128  # NVML: power cap, hardware slow-down, heat (twice), power brake
THROTTLED_SHARE = 0.05  # of the repetitions; one moment in a long session is no reason


def reasons_for_doubt(
    clock: str, sessions: int, fewest_pairs: int, controls: tuple[float, float] | None, throttled: bool | None
) -> tuple[str, ...]:
    """What keeps a row from being published; () for one that can be.

    fewest_pairs: of any shape in any session. controls: bounds of the A/A ratio's interval, None with too few.
    """
    found = []
    if clock == PerfCounterBackend.kind:
        found.append("timed on a CPU")
    if sessions < PUBLISHED_SESSIONS:
        found.append(f"{sessions} of {PUBLISHED_SESSIONS} sessions")
    if fewest_pairs < PUBLISHED_PAIRS:
        found.append(f"{fewest_pairs} of {PUBLISHED_PAIRS} pairs in a shape")
    if throttled:
        found.append("the device was throttled")
    if controls is not None and not controls[0] <= 1 <= controls[1]:
        found.append("equal arms differed (A/A)")
    elif controls is not None and (controls[1] - controls[0]) / 2 > WIDEST_CONTROL:
        found.append("noisy: equal arms could not be told to be equal (A/A)")
    return tuple(found)


def was_throttled(resources: Iterable[ResourceRow]) -> bool | None:
    """Whether the device held itself back in more than 5 % of the moments looked at; None where it does not say."""
    bits = [int(row.value) for row in resources if row.name.startswith("throttle_bits/")]
    return sum(bool(one & THROTTLE_BITS) for one in bits) > THROTTLED_SHARE * len(bits) if bits else None
