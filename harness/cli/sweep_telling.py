"""A sweep's report as a JSON document, as a table, and as words: what failed, and the command that redoes it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cli.printing import print_rows, tell
from harness.records.figures import ERROR, FAILED_BUDGET, INFEASIBLE, OK, UNSUPPORTED
from harness.request.request import Request
from harness.store.database import Store
from harness.sweep.loop import Report
from harness.sweep.schedule import CellState
from harness.sweep.tasks import DAMAGED, MISSING, STALE

GROUPS: Mapping[str, Sequence[str]] = {
    "done": (OK,),
    "missing": (MISSING,),
    "stale": (STALE,),
    "infeasible": (INFEASIBLE,),
    "unsupported": (UNSUPPORTED,),
    "failed": (ERROR, FAILED_BUDGET, DAMAGED),
}
COLUMNS = ("model", "benchmark", "method", "budget", "seed", "status", "accuracy", "ra", "message")


def document(report: Report, store: Store, dry: bool, workers: int) -> dict[str, Any]:
    """The JSON of a sweep: every cell under what it is. Keys are a promise: add, and never rename."""
    rows = {row["run_id"]: row for row in store.runs().to_dict("records")}
    cells = [_cell(state, store, rows) for state in report.cells]
    groups = {group: [cell for cell in cells if cell["status"] in states] for group, states in GROUPS.items()}
    return {
        **groups,
        "ran": sum(state.ran for state in report.cells),
        "dry_run": dry,
        "estimate_s": round(report.left_s / workers, 1),
        "seconds": round(report.seconds, 1),
        "stopped": report.stopped,
        "store": str(store.path),
    }


def _cell(state: CellState, store: Store, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    request, spec = state.request, state.finding.spec
    run_id = spec.run_id if spec else None
    row = rows.get(run_id or "", {})
    return {
        "model": request.model,
        "benchmark": request.benchmark,
        "method": request.method,
        "settings": dict(request.settings),
        "budget": str(request.budget),
        "seed": request.seed,
        "run_id": run_id,
        "status": MISSING if state.has_work else state.status,
        "message": state.message or ("only its timing is left" if state.has_work and state.status == OK else ""),
        "floor_tokens": state.floor_tokens,
        "accuracy": row.get("accuracy"),
        "ra": row.get("ra"),
        "estimate_s": round(state.left_s, 1) if state.has_work else 0.0,
        "command": shlex.join(command_of(request, store, state.status)),
    }


def command_of(request: Request, store: Store, status: str) -> list[str]:
    """The one command that does a cell again; a finished or damaged one is begun again."""
    usual = Request(request.method, request.budget)
    words = ["harness", "run", "--method", request.method]
    if not request.is_full:
        words += ["--budget", str(request.budget)]
    words += ["--model", request.model, "--benchmark", request.benchmark]
    for key, value in request.settings.items():
        words += ["--set", f"{key}={value}"]
    for name in ("seed", "limit", "dtype", "device", "attention", "image_backend", "data_dir"):
        if getattr(request, name) != getattr(usual, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(request, name))]
    words += ["--stream"] if request.stream else []
    words += ["--no-timing", "--store", str(store.path)]
    return [*words, "--force"] if status in (OK, FAILED_BUDGET, DAMAGED) else words


def print_summary(told: Mapping[str, Any]) -> None:
    """The table of all cells on stdout."""
    print_rows([cell for group in GROUPS for cell in told[group]], COLUMNS)


def tell_summary(told: Mapping[str, Any]) -> None:
    """What the table does not say, on stderr."""
    counts = {group: len(told[group]) for group in GROUPS}
    total = sum(counts.values())
    said = ", ".join(f"{count} {group}" for group, count in counts.items() if count)
    if told["dry_run"]:
        tell(f"{total} cells: {said}; about {duration(told['estimate_s'])} of work is left")
    elif not told["ran"] and not told["stopped"]:
        tell(f"nothing to do for {total} cells: {said}")
    else:
        tell(f"{total} cells: {said}; {told['ran']} of them in {duration(told['seconds'])}")
    if counts["stale"]:
        tell(f"{counts['stale']} cells were answered by older code: --redo-stale answers them again")
    for cell in told["failed"]:
        tell(f"{cell['method']} at {cell['budget']} seed {cell['seed']} is {cell['status']}: {cell['message']}")
        tell(f"  again: {cell['command']}")


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
