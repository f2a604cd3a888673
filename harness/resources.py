"""What a timing session measures beside the timed pairs: work and limits, memory, kernels, throughput, energy.

Each repetition here is untimed, or a loop of its own. Memory, kernels and rates speak of the shape with the most
tokens; work of every shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from harness.figures import ResourceRow
from harness.measure.kernels import attention_calls
from harness.measure.machine import energy_reader
from harness.measure.memory import kv_cache_bytes, peak_memory
from harness.measure.peaks import device_name, measured_peaks, vendor_peaks
from harness.measure.rates import joules_per_prefill, prefills_per_s
from harness.measure.roofline import BASE, LATE, PRUNED, limit_rows, work_rows
from harness.models.clock import Untimed

if TYPE_CHECKING:
    from harness.timing import Arm, Case, Subject

BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}

Cases = Mapping[str, "Case"]
Arms = Mapping[str, "tuple[Arm, Arm]"]


def resource_rows(subject: Subject, cases: Cases, arms: Arms, session: str) -> list[ResourceRow]:
    """Every row of one session; names carry the unit, what they speak of stands behind a slash."""
    model = subject.answering.model
    largest = max(cases, key=lambda key: cases[key].inputs.shape.n + cases[key].inputs.text_tokens)
    rows = _work(subject, cases, arms, session)
    rows += limit_rows(session, subject.dims, BYTES_PER_VALUE[model.dtype], _peaks(model.device, model.dtype))
    for name, arm in zip((BASE, PRUNED), arms[largest], strict=True):
        found = {**_memory(subject, arm), **_kernels(arm), **_rates(arm, model.device)}
        rows += [ResourceRow(session, name, key, float(value)) for key, value in found.items() if value is not None]
    return rows


def _work(subject: Subject, cases: Cases, arms: Arms, session: str) -> list[ResourceRow]:
    """FLOPs of both arms on every shape, and of a late pruner that keeps nothing."""
    rows: list[ResourceRow] = []
    for key, case in cases.items():
        base, pruned = (arm(Untimed()).realised for arm in arms[key])
        nothing = replace(base, entering=(0,) * len(base.entering))
        told = ((BASE, base, case.full), (PRUNED, pruned, case.plan), (LATE, nothing, case.full))
        for arm, realised, plan in told:
            rows += work_rows(session, arm, key, subject.answering.flops(realised, plan))
    return rows


def _peaks(device: str, dtype: str) -> tuple:
    return vendor_peaks(device_name(device), dtype), measured_peaks(device, dtype)


def _memory(subject: Subject, arm: Arm) -> dict[str, float | None]:
    """Peaks of one repetition, and the cache that it leaves."""
    peak = peak_memory(partial(arm, Untimed()))
    bytes_per_value = BYTES_PER_VALUE[subject.answering.model.dtype]
    return {
        "peak_allocated_bytes": peak.allocated_bytes,
        "peak_reserved_bytes": peak.reserved_bytes,
        "host_peak_rss_bytes": peak.host_peak_rss_bytes,
        "kv_cache_bytes": kv_cache_bytes(subject.dims, arm(Untimed()).realised, bytes_per_value),
    }


def _kernels(arm: Arm) -> dict[str, int]:
    return {f"attention_calls/{stage}/{kernel}": calls for (stage, kernel), calls in attention_calls(arm).items()}


def _rates(arm: Arm, device: str) -> dict[str, float | None]:
    run, wait = partial(arm, Untimed()), _waiting(device)
    found = {f"prefills_per_s/{batch}": rate for batch, rate in prefills_per_s(run, wait).items()}
    with energy_reader() as read_millijoules:
        found["joules_per_prefill"] = joules_per_prefill(run, wait, read_millijoules)
    return found


def _waiting(device: str) -> Callable[[], None]:
    import torch

    return torch.accelerator.synchronize if torch.device(device).type != "cpu" else lambda: None
