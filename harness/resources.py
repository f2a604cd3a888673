"""What a timing session measures beside the timed pairs: work and limits, memory, kernels, throughput, energy.

Each repetition here is untimed, or a loop of its own. Memory, kernels and rates speak of the shape with the most
tokens; work of every shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from harness.flops.dims import ModelDims
from harness.measure.kernels import attention_calls
from harness.measure.machine import energy_reader
from harness.measure.memory import PeakMemory, kv_cache_bytes, peak_memory
from harness.measure.peaks import device_name, measured_peaks, vendor_peaks
from harness.measure.rates import joules_per_prefill, prefills_per_s
from harness.measure.roofline import BASE, LATE, PRUNED, limit_rows, work_rows
from harness.models.clock import Untimed
from harness.models.engine import Prefill
from harness.records.records import Realised, ResourceRow

if TYPE_CHECKING:
    from harness.request.opening import Subject
    from harness.timing import Arm, Case

BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}

Cases = Mapping[str, "Case"]
Arms = Mapping[str, "tuple[Arm, Arm]"]


@dataclass(frozen=True)
class Sight:
    """What one untimed repetition of an arm shows. attention_calls: (stage, kernel) -> calls."""

    realised: Realised
    peak: PeakMemory
    attention_calls: Mapping[tuple[str, str], int]


def look(arm: Arm) -> Sight:
    """One repetition, watched."""
    seen: list[tuple[Prefill, Mapping[tuple[str, str], int]]] = []

    def once() -> None:
        out: list[Prefill] = []
        calls = attention_calls(lambda watch: out.append(arm(watch)))
        seen.append((out[0], calls))

    peak = peak_memory(once)
    return Sight(seen[0][0].realised, peak, seen[0][1])


def resource_rows(subject: Subject, cases: Cases, arms: Arms, session: str, loops: bool = True) -> list[ResourceRow]:
    """Every row of one session; names carry the unit, what they speak of stands behind a slash.

    loops: whether throughput and energy are measured too, which take seconds an arm.
    """
    model = subject.answering.model
    largest = max(cases, key=lambda key: cases[key].inputs.shape.n + cases[key].inputs.text_tokens)
    bytes_per_value = BYTES_PER_VALUE[model.dtype]
    rows = limit_rows(session, subject.dims, bytes_per_value, _peaks(model.device, model.dtype))
    for key, case in cases.items():
        sights = tuple(look(arm) for arm in arms[key])
        rows += _work(subject, case, key, sights, session)
        if key != largest:
            continue
        for name, arm, sight in zip((BASE, PRUNED), arms[key], sights, strict=True):
            found = {**_memory(sight, subject.dims, bytes_per_value), **_kernels(sight)}
            found |= _rates(arm, model.device) if loops else {}
            rows += [
                ResourceRow(session, name, what, float(value)) for what, value in found.items() if value is not None
            ]
    return rows


def _work(subject: Subject, case: Case, key: str, sights: tuple[Sight, ...], session: str) -> list[ResourceRow]:
    """FLOPs of both arms on one shape, and of a late pruner that keeps nothing."""
    base, pruned = (sight.realised for sight in sights)
    nothing = replace(base, entering=(0,) * len(base.entering))
    told = ((BASE, base, case.full), (PRUNED, pruned, case.plan), (LATE, nothing, case.full))
    return [
        row
        for arm, realised, plan in told
        for row in work_rows(session, arm, key, subject.answering.flops(realised, plan))
    ]


def _peaks(device: str, dtype: str) -> tuple:
    return vendor_peaks(device_name(device), dtype), measured_peaks(device, dtype)


def _memory(sight: Sight, dims: ModelDims, bytes_per_value: int) -> dict[str, float | None]:
    """Peaks of one repetition, and the cache that it leaves."""
    return {
        "peak_allocated_bytes": sight.peak.allocated_bytes,
        "peak_reserved_bytes": sight.peak.reserved_bytes,
        "host_peak_rss_bytes": sight.peak.host_peak_rss_bytes,
        "kv_cache_bytes": kv_cache_bytes(dims, sight.realised, bytes_per_value),
    }


def _kernels(sight: Sight) -> dict[str, int]:
    return {f"attention_calls/{stage}/{kernel}": calls for (stage, kernel), calls in sight.attention_calls.items()}


def _rates(arm: Arm, device: str) -> dict[str, float | None]:
    run, wait = partial(arm, Untimed()), _waiting(device)
    found = {f"prefills_per_s/{batch}": rate for batch, rate in prefills_per_s(run, wait).items()}
    with energy_reader() as read_millijoules:
        found["joules_per_prefill"] = joules_per_prefill(run, wait, read_millijoules)
    return found


def _waiting(device: str) -> Callable[[], None]:
    import torch

    return torch.accelerator.synchronize if torch.device(device).type != "cpu" else lambda: None
