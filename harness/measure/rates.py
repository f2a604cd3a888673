"""Prefills a second and joules a prefill: loops without pauses, apart from the timed pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

BATCHES = (1, 8, 32)
NOT_BATCHED = "batches above 1 are not measured: a batch is prefilled prompt by prompt"
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
