"""Many methods timed against no pruning on one synthetic scene each: the latency half of a leaderboard, no data needed.

The grid is models x attentions x scenes x methods x budgets. A session opens each model once for all its cells; where
several sessions are asked, each runs in a fresh process. Rounds go on as long as there is time: every cell gets its
first session before any gets its second. What a file holds already is not measured again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

from harness.benchmarks.synthetic import benchmark_of
from harness.budget.planning import FALL_SHORT
from harness.budget.spec import matches
from harness.latency.protocol import Protocol
from harness.latency.session import arms_of, cases_of, in_fresh_process, time_session
from harness.latency.statistics import PUBLISHED_PAIRS
from harness.latency.table import CellOutcome, LatencyCell, session_of
from harness.models.clock import Untimed
from harness.models.loading import OpenModel, adapter_file
from harness.models.processors import TEXT
from harness.records.figures import ERROR, FAILED_BUDGET, INFEASIBLE, OK, UNSUPPORTED
from harness.records.progress import Stop
from harness.request.open_run import OpenRun
from harness.request.opening import Bench
from methods import build, get
from methods.base import BudgetInfeasible, Pruner, PruningError

UNTIMED_PREFILLS = 3  # of a session beside its pairs: the method's first, then one of each arm that is watched


def measure(
    rounds: Iterable[Sequence[LatencyCell]], protocol: Protocol, fresh: bool, stop: Stop = lambda: False
) -> Iterator[CellOutcome]:
    """The outcomes of each round's cells as they are there, until the protocol's seconds are spent.

    protocol: pairs of one cell at most; seconds of everything. fresh: each stage of each round in a process of its
    own. Raises Interrupted when told to stop, and what opening a model raises; one too large gives error outcomes.
    """
    end = None if protocol.seconds is None else time.monotonic() + protocol.seconds
    for cells in rounds:
        left = list(cells)
        for stage in dict.fromkeys(cell.stage for cell in cells):
            mine = [cell for cell in left if cell.stage == stage]
            if end is not None and time.monotonic() >= end:
                return
            run = partial(run_stage, mine, protocol, end, len(left) - len(mine))
            yield from in_fresh_process(run, stop) if fresh else run(stop)
            left = left[len(mine) :]


def run_stage(
    cells: Sequence[LatencyCell], protocol: Protocol, end: float | None, others: int, stop: Stop
) -> Iterator[CellOutcome]:
    """The outcomes of one stage's cells. end: on the monotonic clock; others: cells that wait for the rest of it."""
    try:
        model = cells[0].stage.open()
    except torch.OutOfMemoryError as error:
        yield from (CellOutcome(cell, ERROR, _first_line(error), {}) for cell in cells)
        return
    for number, cell in enumerate(cells):
        if end is not None and number and time.monotonic() >= end:
            return
        share = None if end is None else max(0.0, end - time.monotonic()) / (len(cells) - number + others)
        yield _outcome(cell, model, protocol, share, stop)


def _outcome(cell: LatencyCell, model: OpenModel, protocol: Protocol, share_s: float | None, stop: Stop) -> CellOutcome:
    facts: dict[str, Any] = {}
    try:
        status, session = _session(cell, model, protocol, share_s, stop, facts)
        return CellOutcome(cell, status, "", facts, session)
    except BudgetInfeasible as error:
        return CellOutcome(cell, INFEASIBLE, str(error), facts)
    except PruningError as error:
        return CellOutcome(cell, UNSUPPORTED, str(error), facts)
    except torch.OutOfMemoryError as error:
        return CellOutcome(cell, ERROR, _first_line(error), facts)


def _session(
    cell: LatencyCell, model: OpenModel, protocol: Protocol, share_s: float | None, stop: Stop, facts: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    pruner, preset = pruner_of(cell.method, model)
    facts |= {"preset": preset, "settings": pruner.settings(), "model_revision": model.revision}
    run = open_cell(cell, model, pruner)
    [(key, case)] = cases_of(run).items()
    _, pruned = arms_of(run, {key: case}, stop)[key]
    began = time.monotonic()
    entering = pruned(Untimed()).realised.entering
    prefill_s = time.monotonic() - began
    asked = cell.budget.ask(case.inputs.shape.n) if cell.budget.kind != "flops_ratio" else None
    facts |= {
        "shape_key": key,
        "visual_tokens": case.inputs.shape.n,
        "text_tokens": case.inputs.text_tokens,
        "asked_tokens": asked,
        "layer_average_tokens": sum(entering) / len(entering),
    }
    rows = time_session(run, _bounds(protocol, share_s, prefill_s, model.device), stop, loops=False)
    status = OK if _meets(cell, asked, entering) else FAILED_BUDGET
    return status, session_of(rows, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")


def pruner_of(method: str, model: OpenModel) -> tuple[Pruner, str]:
    """The method and its preset; where a trained adapter is wanted and there is none, a preset that wants none.

    Time does not depend on what an adapter has learnt, its shapes are the same.
    """
    pruner = build(method)
    if not pruner.wants_adapter or adapter_file(model.family, pruner) is not None:
        return pruner, "" if ".py" in method else method.partition(":")[2]
    for preset in get(pruner.name).presets:
        untrained = build(f"{pruner.name}:{preset}")
        if not untrained.wants_adapter:
            return untrained, preset
    return pruner, ""


def open_cell(cell: LatencyCell, model: OpenModel, pruner: Pruner) -> OpenRun:
    """A cell's method at its budget on its scene."""
    benchmark = benchmark_of(cell.scene, TEXT)
    return OpenRun(Bench(model, benchmark, benchmark.samples), pruner, cell.budget, cell.scene.seed)


def _bounds(protocol: Protocol, share_s: float | None, prefill_s: float, device: str) -> Protocol:
    """The bounds of one cell's session: its share of the time, less what is not timed in it."""
    on_host = torch.device(device).type == "cpu"
    pairs = protocol.pairs or (None if on_host else PUBLISHED_PAIRS)
    if share_s is None:
        return Protocol(pairs=pairs or PUBLISHED_PAIRS, seed=protocol.seed)
    seconds = max(0.0, share_s - UNTIMED_PREFILLS * prefill_s)
    slow = on_host and prefill_s > 0.2  # warm-up until times settle would take all of it
    return Protocol(pairs=pairs, seconds=seconds, warmup=1 if slow else None, seed=protocol.seed)


def _meets(cell: LatencyCell, asked: int | None, entering: tuple[int, ...]) -> bool:
    if asked is None or cell.method == "full":
        return True
    entered = entering[:1] if cell.budget.kind == "interface_kept" else entering
    return matches(asked, entered) or (cell.method in FALL_SHORT and sum(entered) <= asked * len(entered))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]
