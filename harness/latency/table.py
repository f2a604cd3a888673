"""Latency rows of a table in one JSON file, ready to submit: every repetition is in it, so that others can summarise.

    {"schema": "latency-table-1", "protocol": "paired-v1", "machines": {ID: facts}, "rows": [ROW, ...]}

A row is one cell on one machine with one state of the code; its sessions hold columns of equal length, milliseconds by
stage. The file is replaced as a whole after each session, never half written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.benchmarks.synthetic import SyntheticScene, benchmark_of
from harness.budget.spec import BudgetSpec
from harness.latency.figures import figures_of_sessions, latency_document
from harness.latency.machine import machine
from harness.latency.statistics import LatencySummary, summarise
from harness.models import catalogue
from harness.models.loading import OpenModel, open_model
from harness.models.random_weights import open_random
from harness.records.errors import UsageError
from harness.records.figures import ERROR, FAILED_BUDGET, OK, Figures
from harness.records.provenance import code_of, family_of, git_state, without_home
from harness.records.published import NOT_STATED, printings
from harness.records.records import LatencyRow, ResourceRow, digest
from harness.request.options import ModelOptions

SCHEMA, PROTOCOL = "latency-table-1", "paired-v1"
_EVERY_MOMENT = ("sm_clock_mhz/", "memory_clock_mhz/", "temperature_c/", "power_w/")  # thousands a session; not stored
_KEYS = ("shape_key", "pair", "arm", "order", "control")


def published(model: str, method: str, budget: str) -> dict[str, Any] | None:
    """LR and prefill latency that a source prints of a method at a budget on a model; None where none prints an LR.

    model: by its short name; budget: as `BudgetSpec` writes it. prefill_ms: of the same table, None where it has none.
    """
    asked = BudgetSpec.parse(budget)
    cell = [
        one
        for one in printings()
        if (one.model.lower(), one.method) == (model, method)
        and (one.budget_kind, one.budget_value) == (asked.kind, asked.value)
    ]
    ratio = next((one for one in cell if one.metric == "LR"), None)
    if ratio is None:
        return None
    beside = (one.value for one in cell if one.metric == "prefill latency" and one.where == ratio.where)
    hardware = "" if ratio.hardware == NOT_STATED else f"; {ratio.hardware}"
    source = f"{ratio.source.name}, {ratio.where}: {ratio.benchmark}{hardware}"
    return {"lr": round(ratio.value / 100, 6), "prefill_ms": next(beside, None), "source": source}


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


@dataclass(frozen=True)
class Stage(ModelOptions):
    """What a process opens once: a model with one attention, on a real device."""

    model: str
    random_weights: bool

    def open(self) -> OpenModel:
        """Raises what opening raises."""
        words = self.part(ModelOptions)
        if self.random_weights:
            return open_random(catalogue.named(self.model), **words)
        return open_model(self.model, **words)


@dataclass(frozen=True)
class LatencyCell:
    """One row to be: a method at a budget on a scene."""

    stage: Stage
    scene: SyntheticScene
    method: str  # NAME, NAME:PRESET or a path
    budget: BudgetSpec

    def identity(self, machine_id: str) -> dict[str, Any]:
        """What tells this cell's rows from others: plain JSON, the code and the machine in it."""
        words = {**asdict(self.stage), **asdict(self.scene), "method": self.method, "budget": str(self.budget)}
        model = self.stage.model
        family = catalogue.named(model).family if self.stage.random_weights else family_of(model)
        scene = benchmark_of(self.scene, "").name
        code = code_of(self.method.partition(":")[0], family, scene) if family else None
        return {**words, "machine_id": machine_id, "code": code or ""}

    def key(self, machine_id: str) -> str:
        return digest(self.identity(machine_id))


@dataclass(frozen=True)
class CellOutcome:
    """What became of one cell in one session. session: its columns; facts: of the cell, None where it did not run."""

    cell: LatencyCell
    status: str
    message: str
    facts: dict[str, Any]
    session: dict[str, Any] | None = None


def grid(
    stages: Iterable[Stage], scenes: Sequence[SyntheticScene], methods: Sequence[str], budgets: Sequence[BudgetSpec]
) -> list[LatencyCell]:
    """Every cell, those of one stage together. No pruning needs one budget only."""
    whole = BudgetSpec("layer_average", 1.0)
    return [
        LatencyCell(stage, scene, method, budget)
        for stage in stages
        for scene in scenes
        for method in methods
        for budget in ([whole] if method == "full" else budgets)
    ]


class Book:
    """Rows of some cells on this machine with today's code. path: None keeps them in memory."""

    def __init__(self, path: Path | None, cells: Sequence[LatencyCell]):
        self._path = path
        self._table = read_table(path) if path else {"machines": {}, "rows": []}
        self._machine = machine()
        self._git = git_state()
        self._keys = {cell: cell.key(self._machine.id) for cell in cells}  # now: the code may change meanwhile
        self._known = {row["key"]: row for row in self._table["rows"]}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of the cells, in their order; cells without one are left out."""
        return [self._known[key] for key in self._keys.values() if key in self._known]

    def missing(self, sessions: int) -> list[list[LatencyCell]]:
        """For each round, the cells that still lack that session; of those that failed only errors are tried again."""
        return [[cell for cell in self._keys if self._lacks(cell, number)] for number in range(sessions)]

    def add(self, outcome: CellOutcome) -> dict[str, Any]:
        """The row of an outcome, its earlier sessions included; the file holds it when this returns."""
        key = self._keys[outcome.cell]
        before = self._known.get(key, {"sessions": []})
        row = {**self._described(outcome), "sessions": before["sessions"]}
        if outcome.session is not None:
            row["sessions"] = [*row["sessions"], outcome.session]
        row |= summary_of(row["sessions"]) if row["sessions"] else {"latency": None, "verdict": None}
        self._known[key] = {"key": key, **{name: row[name] for name in row if name != "sessions"}}
        self._known[key]["sessions"] = row["sessions"]  # the long part last
        if self._path:
            write_table(self._path, self._document())
        return self._known[key]

    def _lacks(self, cell: LatencyCell, number: int) -> bool:
        row = self._known.get(self._keys[cell])
        if row is None:
            return True
        if row["status"] == ERROR:
            return number == 0
        return row["status"] in (OK, FAILED_BUDGET) and len(row["sessions"]) <= number

    def _described(self, outcome: CellOutcome) -> dict[str, Any]:
        cell = outcome.cell
        identity = cell.identity(self._machine.id)
        picture = [identity.pop("width_px"), identity.pop("height_px")]
        method, words = identity.pop("method").partition(":")[0], identity.pop("text_tokens")
        return without_home({
            "status": outcome.status,
            "message": outcome.message,
            "model": identity.pop("model"),
            "method": method,
            "budget": identity.pop("budget"),
            "image_px": picture,
            "question_words": words,
            **identity,
            **outcome.facts,
            "git_commit": self._git.commit,
            "git_dirty": self._git.dirty,
            "published": published(cell.stage.model, method, str(cell.budget)),
        })  # fmt: skip

    def _document(self) -> dict[str, Any]:
        others = {key: row for key, row in self._known.items() if key not in self._keys.values()}
        machines = {**self._table["machines"], self._machine.id: self._machine.facts()}
        return {**self._table, "machines": machines, "rows": [*others.values(), *self.rows]}
