"""From a run's log to the rows of the store's tables. Everything goes as JSON text, which DuckDB parses itself:
records are in their log as such, and a million of them are too many for Python."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.budget.spec import BudgetSpec
from harness.records.figures import PARTIAL, Figures
from harness.store.log_reader import RunFrame, RunTexts
from harness.store.schema import TABLES

if TYPE_CHECKING:
    import duckdb

_RENAMED = {  # table -> column -> field
    "runs": {"sample_limit": "limit"},
    "samples": {"inference_time_s": "seconds", "prefill_flops": "flops"},
    "latencies": {"position_in_pair": "order"},
}


def replace_runs(connection: duckdb.DuckDBPyConnection, runs: Iterable[RunTexts]) -> list[str]:
    """Put the rows of runs in place of those they had, one run in memory at a time. Gives their ids.

    The caller holds the transaction. Raises duckdb.InvalidInputException for a text that is not one of today's records.
    """
    known = {run_id for (run_id,) in connection.execute("SELECT run_id FROM runs").fetchall()}
    small: dict[str, list[dict[str, Any]]] = {"runs": [], "environments": []}  # inserted together: a row costs as much
    for run in runs:
        run_id = run.spec.run_id
        if run_id in known:
            for table in TABLES:
                connection.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])
        _insert(connection, "samples", b"\n".join(run.records).decode(), run_id)
        _insert(connection, "latencies", _texts({"machine_id": at, **vars(row)} for at, row in run.latencies), run_id)
        _insert(connection, "resources", _texts({"machine_id": at, **vars(row)} for at, row in run.resources), run_id)
        small["runs"].append(_run(run, run.figures or _partial(connection, run_id)))
        small["environments"] += _environments(run)
    for table, rows in small.items():
        _insert(connection, table, _texts(rows))
    return [row["run_id"] for row in small["runs"]]


def _partial(connection: duckdb.DuckDBPyConnection, run_id: str) -> Figures:
    """What can be said of an unfinished run once its samples are there."""
    counts = "SELECT count(*), count(error) FROM samples WHERE run_id = ?"
    n, errors = connection.execute(counts, [run_id]).fetchall()[0]
    return Figures(PARTIAL, n=n, errors=errors)


def _run(run: RunFrame, figures: Figures) -> dict[str, Any]:
    spec = run.spec
    return {
        "run_id": spec.run_id,
        "cell_id": spec.cell_id,
        "budget": str(BudgetSpec(spec.budget_kind, spec.budget_value)),
        **asdict(spec),
        **asdict(figures),
        "settings": json.dumps(spec.settings),
        "machine_id": run.latencies[-1][0] if run.latencies else run.sessions[0].environment.machine_id,
        "started_at": run.sessions[0].at.isoformat(),
        "finished_at": run.finished_at and run.finished_at.isoformat(),
    }


def _environments(run: RunFrame) -> list[dict[str, Any]]:
    return [
        {
            "run_id": run.spec.run_id,
            "session": number,
            "machine_id": session.environment.machine_id,
            "started_at": session.at.isoformat(),
            "dropped_bytes": session.dropped_bytes,
            "facts": json.dumps(session.environment.facts),
        }
        for number, session in enumerate(run.sessions)
    ]


def _texts(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as lines of JSON."""
    return "\n".join(json.dumps(row, allow_nan=False) for row in rows)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, texts: str, run_id: str | None = None) -> None:
    """Insert one row for each line of `texts`, whose keys are the table's columns or what they are called before.

    run_id: of all rows, None where each has its own.
    """
    if not texts:
        return
    described = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index"
    types = dict(connection.execute(described, [table]).fetchall())
    computed = {"run_id": "$run_id"} if run_id else {}
    if table == "samples":
        computed["realised_tokens"] = "list_avg(one.entering)"
    fields = {column: _RENAMED.get(table, {}).get(column, column) for column in types}
    shape = json.dumps({fields[column]: _json_type(types[column]) for column in types.keys() - computed})
    chosen = ", ".join(computed.get(column, f'one."{fields[column]}"') for column in types)
    parsed = f"SELECT from_json_strict(unnest(string_split($texts, chr(10))), '{shape}') AS one"
    values = {"texts": texts, "run_id": run_id} if run_id else {"texts": texts}
    connection.execute(f"INSERT INTO {table} SELECT {chosen} FROM ({parsed})", values)


def _json_type(kind: str) -> str | list[str]:
    """A column's type as DuckDB's JSON functions want it. A column of JSON gets it as text, and keeps its blanks."""
    if kind == "JSON":
        return "VARCHAR"
    return [kind.removesuffix("[]")] if kind.endswith("[]") else kind
