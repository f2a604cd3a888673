"""The store's tables and how an older database becomes a current one.

`MIGRATIONS[i]` turns schema version i into i + 1; a new database goes through all of them. A migration is never
edited once released: add one. Since every table is rebuilt from the run logs, a migration only has to change shape.

No primary keys: a run's rows are deleted and inserted in one transaction, which DuckDB's indexes refuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.records.errors import UsageError

if TYPE_CHECKING:
    import duckdb

TABLES = ("runs", "samples", "latencies", "resources", "environments")

_VERSION_1 = """
CREATE TABLE runs (
    run_id VARCHAR NOT NULL, cell_id VARCHAR NOT NULL, status VARCHAR NOT NULL, message VARCHAR NOT NULL,
    method VARCHAR NOT NULL, preset VARCHAR NOT NULL, settings JSON NOT NULL, adapter VARCHAR NOT NULL,
    model VARCHAR NOT NULL, model_revision VARCHAR NOT NULL,
    benchmark VARCHAR NOT NULL, benchmark_revision VARCHAR NOT NULL,
    budget VARCHAR NOT NULL, budget_kind VARCHAR NOT NULL, budget_value DOUBLE,
    seed BIGINT NOT NULL, sample_limit BIGINT, sample_ids VARCHAR NOT NULL,
    dtype VARCHAR NOT NULL, attention VARCHAR NOT NULL, image_backend VARCHAR NOT NULL, device VARCHAR NOT NULL,
    code VARCHAR NOT NULL, protocol VARCHAR NOT NULL, machine_id VARCHAR NOT NULL,
    started_at TIMESTAMP NOT NULL, finished_at TIMESTAMP,
    n BIGINT NOT NULL, errors BIGINT NOT NULL,
    full_tokens DOUBLE, asked_tokens DOUBLE, realised_tokens DOUBLE,
    accuracy DOUBLE, accuracy_low DOUBLE, accuracy_high DOUBLE, full_accuracy DOUBLE,
    ra DOUBLE, ra_low DOUBLE, ra_high DOUBLE, reference_run_id VARCHAR,
    flops_ratio DOUBLE, llm_flops_ratio DOUBLE, visual_tokens_pruned_ratio DOUBLE,
    base_prefill_flops DOUBLE, pruned_prefill_flops DOUBLE,
    base_prefill_2ndm_flops DOUBLE, pruned_prefill_2ndm_flops DOUBLE,
    latency_clock VARCHAR, lr DOUBLE, lr_low DOUBLE, lr_high DOUBLE, indicative BOOLEAN,
    aa_ratio_low DOUBLE, aa_ratio_high DOUBLE,
    base_ms MAP(VARCHAR, DOUBLE) NOT NULL, pruned_ms MAP(VARCHAR, DOUBLE) NOT NULL,
    inference_time_s DOUBLE, recall_of_target DOUBLE
);
CREATE TABLE samples (
    run_id VARCHAR NOT NULL, sample_id VARCHAR NOT NULL, cluster VARCHAR NOT NULL, category VARCHAR NOT NULL,
    answer VARCHAR NOT NULL, prediction VARCHAR NOT NULL, score DOUBLE NOT NULL,
    full_tokens INTEGER NOT NULL, asked_tokens INTEGER, realised_tokens DOUBLE, entering INTEGER[] NOT NULL,
    kept MAP(VARCHAR, VARCHAR) NOT NULL, recall_of_target DOUBLE, error VARCHAR, inference_time_s DOUBLE NOT NULL,
    prefill_flops MAP(VARCHAR, BIGINT) NOT NULL
);
CREATE TABLE latencies (
    run_id VARCHAR NOT NULL, machine_id VARCHAR NOT NULL, session VARCHAR NOT NULL, shape_key VARCHAR NOT NULL,
    pair INTEGER NOT NULL, arm VARCHAR NOT NULL, position_in_pair INTEGER NOT NULL, control BOOLEAN NOT NULL,
    stage VARCHAR NOT NULL, ms DOUBLE NOT NULL, clock VARCHAR NOT NULL
);
CREATE TABLE resources (
    run_id VARCHAR NOT NULL, machine_id VARCHAR NOT NULL, session VARCHAR NOT NULL, arm VARCHAR NOT NULL,
    name VARCHAR NOT NULL, value DOUBLE NOT NULL
);
CREATE TABLE environments (
    run_id VARCHAR NOT NULL, session INTEGER NOT NULL, machine_id VARCHAR NOT NULL, started_at TIMESTAMP NOT NULL,
    dropped_bytes BIGINT NOT NULL, facts JSON NOT NULL
);
"""

_VERSION_2 = "ALTER TABLE runs ADD COLUMN floor_tokens DOUBLE"

_VERSION_3 = "".join(
    f"ALTER TABLE runs ADD COLUMN {column};"
    for column in (
        *("indicative_because VARCHAR", "latency_interval VARCHAR", "latency_sessions BIGINT", "latency_pairs BIGINT"),
        *("host_bound BOOLEAN", "throttled BOOLEAN", "aa_ratio DOUBLE"),
        *("base_p90_ms DOUBLE", "pruned_p90_ms DOUBLE", "base_ttft_ms DOUBLE", "pruned_ttft_ms DOUBLE"),
        *("base_residual_ratio DOUBLE", "pruned_residual_ratio DOUBLE"),
        *("base_attention MAP(VARCHAR, VARCHAR)", "pruned_attention MAP(VARCHAR, VARCHAR)"),
        *("roofline_peaks VARCHAR", "roofline_lr DOUBLE", "lr_efficiency DOUBLE", "select_tax DOUBLE"),
        *("late_ceiling_lr DOUBLE", "base_peak_bytes DOUBLE", "pruned_peak_bytes DOUBLE"),
        *("base_kv_cache_bytes DOUBLE", "pruned_kv_cache_bytes DOUBLE"),
        *("base_prefills_per_s MAP(VARCHAR, DOUBLE)", "pruned_prefills_per_s MAP(VARCHAR, DOUBLE)"),
        *("throughput_note VARCHAR", "base_joules DOUBLE", "pruned_joules DOUBLE"),
    )
)

_VERSION_4 = "ALTER TABLE runs ADD COLUMN metrics MAP(VARCHAR, DOUBLE)"

_VERSION_5 = "ALTER TABLE samples ADD COLUMN merged MAP(VARCHAR, VARCHAR)"

_VERSION_6 = "ALTER TABLE samples ALTER COLUMN score DROP NOT NULL"

MIGRATIONS: tuple[str, ...] = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6)


def is_current(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a database has the newest schema. Raises UsageError if it is newer than this code, or not a store."""
    return _version(connection) == len(MIGRATIONS)


def migrate(connection: duckdb.DuckDBPyConnection, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring a database to the newest schema, all or nothing. Raises UsageError as `is_current` does."""
    version = _version(connection, len(migrations))
    if version == len(migrations):
        return
    connection.begin()
    for script in migrations[version:]:
        connection.execute(script)
    connection.execute("CREATE OR REPLACE TABLE meta AS SELECT ?::INTEGER AS schema_version", [len(migrations)])
    connection.commit()


def _version(connection: duckdb.DuckDBPyConnection, newest: int = len(MIGRATIONS)) -> int:
    """The schema version, 0 for an empty database."""
    tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        return 0
    if "meta" not in tables:
        raise UsageError("that database is not a store of this harness; give another --store")
    version = connection.execute("SELECT schema_version FROM meta").fetchall()[0][0]
    if version > newest:
        raise UsageError(
            f"the store has schema {version}, this harness knows {newest}: upgrade it, or give another --store"
        )
    return version
