"""From a run's log to the rows of the store's tables, one data frame each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.budget import BudgetSpec
from harness.figures import PARTIAL, Figures
from harness.log_contents import RunContents
from harness.schema import TABLES

if TYPE_CHECKING:
    import duckdb

_PANDAS_TYPES = {
    "DOUBLE": "Float64",
    "INTEGER": "Int64",
    "BIGINT": "Int64",
    "BOOLEAN": "boolean",
    "TIMESTAMP": "datetime64[us]",
}  # all can be missing; everything else travels as text and is cast by DuckDB
_RENAMED = {  # field -> column
    "limit": "sample_limit",
    "order": "position_in_pair",
    "seconds": "inference_time_s",
    "flops": "prefill_flops",
}


def replace_run(connection: duckdb.DuckDBPyConnection, contents: RunContents) -> None:
    """Put a run's rows in place of those it had. The caller holds the transaction."""
    run_id = contents.spec.run_id
    rows = {
        "runs": [_run(contents)],
        "samples": _samples(contents),
        "latencies": [{"run_id": run_id, "machine_id": at, **vars(row)} for at, row in contents.latencies],
        "resources": [{"run_id": run_id, "machine_id": at, **vars(row)} for at, row in contents.resources],
        "environments": _environments(contents),
    }
    for table in TABLES:
        connection.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])
        _insert(connection, table, rows[table])


def _run(contents: RunContents) -> dict[str, Any]:
    spec = contents.spec
    errors = sum(record.error is not None for record in contents.records.values())
    figures = contents.figures or Figures(PARTIAL, n=len(contents.records), errors=errors)
    return {
        "run_id": spec.run_id,
        "cell_id": spec.cell_id,
        "budget": str(BudgetSpec(spec.budget_kind, spec.budget_value)),
        **asdict(spec),
        **asdict(figures),
        "machine_id": contents.latencies[-1][0] if contents.latencies else contents.sessions[0].environment.machine_id,
        "started_at": contents.sessions[0].at,
        "finished_at": contents.finished_at,
    }


def _samples(contents: RunContents) -> list[dict[str, Any]]:
    run_id = contents.spec.run_id
    return [
        {
            "run_id": run_id,
            "realised_tokens": sum(record.entering) / len(record.entering) if record.entering else None,
            **vars(record),
        }
        for record in contents.records.values()
    ]


def _environments(contents: RunContents) -> list[dict[str, Any]]:
    return [
        {
            "run_id": contents.spec.run_id,
            "session": number,
            "machine_id": session.environment.machine_id,
            "started_at": session.at,
            "dropped_bytes": session.dropped_bytes,
            "facts": session.environment.facts,
        }
        for number, session in enumerate(contents.sessions)
    ]


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert rows whose keys are the table's columns, no more and no fewer."""
    if not rows:
        return
    described = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?"
    types = dict(connection.execute(described, [table]).fetchall())
    columns = {_RENAMED.get(key, key): [row[key] for row in rows] for key in rows[0]}
    assert columns.keys() == types.keys(), f"{table}: {columns.keys() ^ types.keys()} on one side only"
    frame = pd.DataFrame({name: _series(columns[name], kind) for name, kind in types.items()})
    casts = ", ".join(_cast(name, kind) for name, kind in types.items())
    connection.register("new_rows", frame)
    connection.execute(f"INSERT INTO {table} SELECT {casts} FROM new_rows")
    connection.unregister("new_rows")


def _series(values: Iterable[Any], kind: str) -> pd.Series:
    if kind in _PANDAS_TYPES:
        return pd.Series(values, dtype=_PANDAS_TYPES[kind])
    return pd.Series([_text(value, kind) for value in values], dtype="string")


def _text(value: Any, kind: str) -> str | None:
    return value if kind == "VARCHAR" or value is None else json.dumps(value)


def _cast(name: str, kind: str) -> str:
    nested = kind.startswith("MAP") or kind.endswith("[]")
    return f'CAST(CAST("{name}" AS JSON) AS {kind})' if nested else f'CAST("{name}" AS {kind})'
