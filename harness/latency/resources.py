"""What a timing session measures beside the timed pairs: work and limits, memory, kernels, throughput, energy.

Each repetition here is untimed, or a loop of its own. Memory, kernels and rates speak of the shape with the most
tokens; work of every shape.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.flops.dims import ModelDims
from harness.latency.figures import BATCHES
from harness.latency.machine import energy_reader
from harness.latency.roofline import (
    BASE,
    LATE,
    PRUNED,
    device_name,
    limit_rows,
    measured_peaks,
    vendor_peaks,
    work_rows,
)
from harness.models.clock import Untimed
from harness.models.engine import Prefill
from harness.records.records import Realised, ResourceRow

if TYPE_CHECKING:
    from harness.latency.protocol import Arm, TimedCase
    from harness.request.open_run import OpenRun

OTHER_STAGE = "other"
_ATTENTION = ("scaled_dot_product", "flash_attn")  # parts of the operators' names
_KINDS = (("flash", "flash"), ("efficient", "memory-efficient"), ("cudnn", "cudnn"), ("", "fused"))
_SOFTMAX = torch.ops.aten._softmax.default  # what an unfused attention ends in


class KernelWatch(TorchDispatchMode):
    """A clock that counts attention calls instead of time. calls: (stage, kernel) -> calls.

    Kernels: "flash", "memory-efficient", "cudnn" or "fused" where torch or a package fused them, else "unfused":
    softmax between two products, as eager attention and torch's own fallback do it. Inside `select` a softmax is the
    method's, so only fused calls count there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[str, str]] = Counter()
        self._running = [OTHER_STAGE]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._running.append(name)
        try:
            yield
        finally:
            self._running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kernel = kernel_of(func, in_selection=self._running[-1] == "select")
        if kernel:
            self.calls[self._running[-1], kernel] += 1
        return func(*args, **(kwargs or {}))


def kernel_of(operator: Any, in_selection: bool = False) -> str | None:
    """The kernel's name when an operator is an attention, else None."""
    if operator is _SOFTMAX:
        return None if in_selection else "unfused"
    name = str(operator)
    if not any(part in name for part in _ATTENTION):
        return None
    return next(kind for part, kind in _KINDS if part in name)


def attention_calls(run: Callable[[KernelWatch], Any]) -> Mapping[tuple[str, str], int]:
    """(stage, kernel) -> calls in one untimed repetition. `run` marks its stages on the watch that it is given."""
    watch = KernelWatch()
    with watch:
        run(watch)
    return dict(watch.calls)


@dataclass(frozen=True)
class PeakMemory:
    """Peaks in bytes. allocated, reserved: torch's on the accelerator, None without one.

    host_peak_rss: of this process since its start (a CPU run cannot be told from what came before it).
    """

    allocated_bytes: int | None
    reserved_bytes: int | None
    host_peak_rss_bytes: int


def peak_memory(run: Callable[[], Any]) -> PeakMemory:
    """The peaks while `run` runs once. The weights that are there already count too."""
    if not torch.cuda.is_available():
        run()
        return PeakMemory(None, None, _host_peak_rss_bytes())
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return PeakMemory(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), _host_peak_rss_bytes())


def _host_peak_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def kv_cache_bytes(dims: ModelDims, realised: Realised, bytes_per_value: int) -> int:
    """Keys and values that the prefill leaves behind, by each layer's own length."""
    tokens = sum(entering + realised.text_tokens for entering in realised.entering)
    return tokens * 2 * dims.llm_key_width * bytes_per_value


RATE_SECONDS, ENERGY_SECONDS = 0.5, 5.0  # NVML's counter moves every 20 to 100 ms
FEWEST_REPETITIONS = 3
Clock = Callable[[], float]


def prefills_per_s(
    run: Callable[[], Any], wait: Callable[[], Any], now_s: Clock = time.perf_counter
) -> Mapping[int, float | None]:
    """Batch size -> prompts prefilled a second, one wait at the end; None for those that cannot run (`NOT_BATCHED`)."""
    wait()
    repetitions, seconds = _loop(run, wait, RATE_SECONDS, now_s)
    return {batch: repetitions / seconds if batch == 1 else None for batch in BATCHES}


def joules_per_prefill(
    run: Callable[[], Any],
    wait: Callable[[], Any],
    read_millijoules: Callable[[], int | None],
    now_s: Clock = time.perf_counter,
) -> float | None:
    """Energy of the device over a loop of at least 5 s, a prefill. None where the device does not say."""
    wait()
    before = read_millijoules()
    if before is None:
        return None
    repetitions, _ = _loop(run, wait, ENERGY_SECONDS, now_s)
    after = read_millijoules()
    return None if after is None else (after - before) / 1000 / repetitions


def _loop(run: Callable[[], Any], wait: Callable[[], Any], least_s: float, now_s: Clock) -> tuple[int, float]:
    """(repetitions, seconds) of a loop of at least 3 repetitions and `least_s`.

    The host runs ahead of an accelerator, so that the loop waits for it in blocks of 3.
    """
    begin, repetitions = now_s(), 0
    while True:
        for _ in range(FEWEST_REPETITIONS):
            run()
        wait()
        repetitions += FEWEST_REPETITIONS
        seconds = now_s() - begin
        if seconds >= least_s:
            return repetitions, seconds


BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}
Cases = Mapping[str, "TimedCase"]
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


def resource_rows(run: OpenRun, cases: Cases, arms: Arms, session: str, loops: bool = True) -> list[ResourceRow]:
    """Every row of one session; names carry the unit, what they speak of stands behind a slash.

    loops: whether throughput and energy are measured too, which take seconds an arm.
    """
    model = run.bench.model
    largest = max(cases, key=lambda key: cases[key].inputs.shape.n + cases[key].inputs.text_tokens)
    bytes_per_value = BYTES_PER_VALUE[model.dtype]
    rows = limit_rows(session, run.dims, bytes_per_value, _peaks(model.device, model.dtype))
    for key, case in cases.items():
        sights = tuple(look(arm) for arm in arms[key])
        rows += _work(run, case, key, sights, session)
        if key != largest:
            continue
        for name, arm, sight in zip((BASE, PRUNED), arms[key], sights, strict=True):
            found = {**_memory(sight, run.dims, bytes_per_value), **_kernels(sight)}
            found |= _rates(arm, model.device) if loops else {}
            rows += [
                ResourceRow(session, name, what, float(value)) for what, value in found.items() if value is not None
            ]
    return rows


def _work(run: OpenRun, case: TimedCase, key: str, sights: tuple[Sight, ...], session: str) -> list[ResourceRow]:
    """FLOPs of both arms on one shape, and of a late pruner that keeps nothing."""
    base, pruned = (sight.realised for sight in sights)
    nothing = replace(base, entering=(0,) * len(base.entering))
    told = ((BASE, base, case.full), (PRUNED, pruned, case.plan), (LATE, nothing, case.full))
    return [
        row for arm, realised, plan in told for row in work_rows(session, arm, key, run.cost.by_stage(realised, plan))
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
