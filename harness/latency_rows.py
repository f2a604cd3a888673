"""Latency rows of a table in one JSON file, ready to submit: every repetition is in it, so that others can summarise.

    {"schema": "latency-table-1", "protocol": "paired-v1", "machines": {ID: facts}, "rows": [ROW, ...]}

A row is one cell on one machine with one state of the code; its sessions hold columns of equal length, milliseconds by
stage. The file is replaced as a whole after each session, never half written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.latency_document import latency_document
from harness.latency_figures import figures_of_sessions
from harness.measure.summary import LatencySummary, summarise
from harness.records.errors import UsageError
from harness.records.figures import OK, Figures
from harness.records.records import LatencyRow, ResourceRow

SCHEMA, PROTOCOL = "latency-table-1", "paired-v1"
_EVERY_MOMENT = ("sm_clock_mhz/", "memory_clock_mhz/", "temperature_c/", "power_w/")  # thousands a session; not stored
_KEYS = ("shape_key", "pair", "arm", "order", "control")


def read_table(path: Path) -> dict[str, Any]:
    """What a file holds, an empty table where there is none. Raises UsageError for another file."""
    if not path.exists():
        return {"schema": SCHEMA, "protocol": PROTOCOL, "machines": {}, "rows": []}
    try:
        table = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no table of latency rows ({error}); give another --out") from error
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        raise UsageError(f"{path} is no {SCHEMA}; give another --out")
    return table


def write_table(path: Path, table: Mapping[str, Any]) -> None:
    """Replace the file by the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in table["rows"])
    head = json.dumps({key: value for key, value in table.items() if key != "rows"}, indent=1)
    beside.write_text(f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n')
    os.replace(beside, path)


def session_of(rows: Iterable[LatencyRow | ResourceRow], at: str) -> dict[str, Any]:
    """One session as columns. at: when it ended, UTC."""
    rows = list(rows)
    timed = [row for row in rows if isinstance(row, LatencyRow)]
    stages = list(dict.fromkeys((row.stage, row.clock) for row in timed))
    places = list(dict.fromkeys(_place(row) for row in timed))
    known = {(*_place(row), row.stage): row.ms for row in timed}
    return {
        "session": timed[0].session,
        "ended_at": at,
        **{key: [place[number] for place in places] for number, key in enumerate(_KEYS)},
        "ms": {stage: [_short(known.get((*place, stage))) for place in places] for stage, _ in stages},
        "clocks": dict(stages),
        "resources": [
            [row.arm, row.name, row.value]
            for row in rows
            if isinstance(row, ResourceRow) and not row.name.startswith(_EVERY_MOMENT)
        ],
    }


def rows_of_session(session: Mapping[str, Any]) -> tuple[list[LatencyRow], list[ResourceRow]]:
    """The rows that `session_of` made columns of."""
    name = session["session"]
    places = list(zip(*(session[key] for key in _KEYS), strict=True))
    timed = [
        LatencyRow(name, *place, stage, ms, session["clocks"][stage])
        for stage, column in session["ms"].items()
        for place, ms in zip(places, column, strict=True)
        if ms is not None
    ]
    return timed, [ResourceRow(name, *row) for row in session["resources"]]


def summary_of(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What sessions on one machine say: `latency` as every run tells it, the verdict, FLOPs by arm and stage."""
    both = [rows_of_session(session) for session in sessions]
    timed = [row for rows, _ in both for row in rows]
    resources = [row for _, rows in both for row in rows]
    found: LatencySummary = summarise(timed)
    flops = {arm: _work(resources, arm) for arm in ("base", "pruned")}
    return {
        "latency": latency_document(Figures(OK, **figures_of_sessions(timed, resources))),
        "verdict": found.verdict,
        "flops": flops,
        "flops_ratio": flops["pruned"]["total_flops"] / flops["base"]["total_flops"],
        "host_peak_rss_bytes": max(row.value for row in resources if row.name == "host_peak_rss_bytes"),
    }


def _place(row: LatencyRow) -> tuple[Any, ...]:
    return tuple(getattr(row, key) for key in _KEYS)


def _short(ms: float | None) -> float | None:
    """To a tenth of a microsecond."""
    return None if ms is None else round(ms, 4)


def _work(resources: Iterable[ResourceRow], arm: str) -> dict[str, float]:
    """Stage -> FLOPs of the one shape of a cell."""
    found = {}
    for row in resources:
        kind, _, place = row.name.partition("/")
        if kind == "work_flops" and row.arm == arm:
            stage = place.partition("/")[0].removesuffix("_prefill")
            found[f"{stage}_flops"] = row.value
    return {**found, "total_flops": sum(found.values())}
