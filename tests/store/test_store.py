"""The store shows what the logs say, survives what can happen to its file, and never mends anything in silence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import duckdb
import pytest
from filelock import FileLock
from logged_runs import FIGURES, HERE, SPEC, record, spec, write_run

from harness.records.errors import CorruptLog, DiskFull, EnvironmentProblem, StoreLocked, UnknownRun, UsageError
from harness.records.figures import INFEASIBLE, Figures
from harness.records.provenance import current_code
from harness.store import schema
from harness.store.database import Store, default_store_path, load
from harness.store.log_reader import encode_line
from harness.store.log_writer import RunLog

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def told():
    return []


@pytest.fixture
def store(tmp_path, told):
    return Store(tmp_path / "x.duckdb", lock_timeout_s=60, tell=told.append)


def everything(store: Store) -> dict[str, list]:
    """Every row of every table, after the store had its chance to mend itself."""
    store.query("FROM runs")
    with duckdb.connect(str(store.path), read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {table: connection.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in tables}


def test_a_run_comes_back_with_its_figures(store):
    run_id = store.ingest(write_run(store.log_folder))
    row = store.run(run_id)
    assert run_id == SPEC.run_id == row["run_id"]
    assert (row["status"], row["budget"], row["settings"]) == ("ok", "50%", {"metric": "cosine", "layers": [1, 2]})
    assert row["accuracy"] == FIGURES.accuracy and row["accuracy_high"] is None
    assert row["base_ms"] == {"vit": 1.5, "total": 2.5} and row["indicative"] is True
    assert row["machine_id"] == HERE.machine_id and row["started_at"] <= row["finished_at"]


def test_every_spec_field_and_figure_has_a_column(store):
    store.ingest(write_run(store.log_folder))
    columns = set(store.runs().columns) | {"limit"}
    assert {field.name for field in [*fields(SPEC), *fields(FIGURES)]} <= columns


def test_samples_keep_their_types(store):
    store.ingest(write_run(store.log_folder))
    samples = load(store.path).samples
    assert list(samples["sample_id"]) == [f"q{number:04d}" for number in range(6)]
    first = samples.iloc[0]
    assert list(first["entering"]) == [32] * 16 and first["realised_tokens"] == 32
    assert first["kept"] == {"interface": "0"} and first["prediction"] == record(0).prediction
    assert first["prefill_flops"] == {"llm": 7 * 10**12, "total": 10**13}
    assert first["score"] == 0 and first["inference_time_s"] == 0.25
    assert samples["recall_of_target"].isna().tolist() == [True, False, False, False, False, True]


def test_numbers_that_first_appear_late_are_not_lost(store):
    """A type guessed from the first rows would turn these into errors or nulls."""
    path = store.log_path(SPEC.run_id)
    with RunLog.open(path, SPEC, HERE) as log:
        log.append(*(record(number, recall_of_target=None, asked_tokens=None) for number in range(1500)))
        log.append(record(1500, error="cannot decode", recall_of_target=0.5, prediction="", entering=()))
    store.ingest(path)
    last = store.query("FROM samples WHERE error IS NOT NULL").iloc[0]
    assert (last["error"], last["recall_of_target"], len(last["entering"])) == ("cannot decode", 0.5, 0)


def test_latencies_stay_raw(store):
    store.ingest(write_run(store.log_folder))
    rows = load(store.path).latencies
    assert rows[["arm", "ms", "stage", "clock", "machine_id"]].values.tolist() == [
        ["base", 1.5, "vit", "perf_counter_ns", "machine-a"],
        ["pruned", 1.0, "vit", "perf_counter_ns", "machine-a"],
    ]


def test_ingesting_again_replaces(store):
    path = write_run(store.log_folder)
    store.ingest(path)
    once = everything(store)
    store.ingest(path)
    assert everything(store) == once
    with RunLog.open(path, SPEC, HERE) as log:
        log.append(record(0, prediction="7"))
        log.finish(FIGURES)
    store.ingest(path)
    assert store.query("SELECT prediction FROM samples WHERE sample_id = 'q0000'").values.tolist() == [["7"]]
    assert len(store.query("FROM samples")) == 6 and len(store.query("FROM environments")) == 2


def test_an_unfinished_and_an_infeasible_run_are_shown_as_such(store):
    with RunLog.open(store.log_path(SPEC.run_id), SPEC, HERE) as log:
        log.append(record(0), record(1, error="cannot decode"))
    other = spec(budget_value=0.03)
    with RunLog.open(store.log_path(other.run_id), other, HERE) as log:
        log.finish(Figures(INFEASIBLE, message="needs >= 8 of 64 tokens"))
    store.ingest(store.log_path(SPEC.run_id))
    store.ingest(store.log_path(other.run_id))
    partial, infeasible = store.run(SPEC.run_id), store.run(other.run_id)
    assert (partial["status"], partial["n"], partial["errors"], partial["finished_at"]) == ("partial", 2, 1, None)
    assert (infeasible["status"], infeasible["message"]) == ("infeasible", "needs >= 8 of 64 tokens")


def test_a_rebuild_gives_identical_tables(store):
    for seed in range(3):
        store.ingest(write_run(store.log_folder, spec(seed=seed), samples=seed + 1))
    before = everything(store)
    assert set(before) == {*schema.TABLES, "meta"} and all(before.values())
    store.path.unlink()
    assert sorted(store.rebuild()) == sorted(spec(seed=seed).run_id for seed in range(3))
    assert everything(store) == before


def test_a_deleted_database_comes_back_by_itself(store):
    store.ingest(write_run(store.log_folder))
    store.path.unlink()
    assert store.run(SPEC.run_id)["n"] == 6


def test_a_damaged_log_is_left_out_of_a_rebuild_and_named(store, told):
    write_run(store.log_folder)
    bad = write_run(store.log_folder, spec(seed=1))
    bad.write_bytes(bad.read_bytes().replace(b"q0001", b"q0009"))
    assert store.rebuild() == [SPEC.run_id]
    assert len(told) == 1 and str(bad) in told[0] and "line 3" in told[0]
    with pytest.raises(CorruptLog, match="line 3"):
        store.ingest(bad)


def test_a_copy_of_a_log_is_not_taken_for_another_run(store, told):
    log = write_run(store.log_folder)
    log.with_name("copy.jsonl").write_bytes(log.read_bytes())
    assert store.rebuild() == [SPEC.run_id] and len(store.runs()) == 1
    assert len(told) == 1 and f"copy.jsonl belongs to run {SPEC.run_id}" in told[0]


def rewritten(log: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The same log with its second record's data changed, every checksum right."""
    lines = log.read_text().splitlines(keepends=True)
    data = json.loads(lines[2])["data"]
    change(data)
    log.write_text("".join([*lines[:2], encode_line("record", data), *lines[3:]]))


def test_a_record_of_an_older_shape_is_taken_in(store, told):
    rewritten(write_run(store.log_folder), lambda data: data.pop("merged"))
    assert store.rebuild() == [SPEC.run_id] and told == []
    assert len(store.query("SELECT DISTINCT sample_id FROM samples")) == 6


def test_a_record_without_sense_is_left_out_of_a_rebuild_and_named(store, told):
    good, bad = write_run(store.log_folder), write_run(store.log_folder, spec(seed=1))
    rewritten(bad, lambda data: data.pop("prediction"))
    assert store.rebuild() == [good.stem]
    assert len(told) == 1 and f"{bad}: line 3 makes no sense" in told[0]
    with pytest.raises(CorruptLog, match="line 3"):
        store.ingest(bad)


def test_of_two_records_of_one_sample_the_later_is_taken_in(store):
    log = write_run(store.log_folder)
    rewritten(log, lambda data: data.update(sample_id="q0000", prediction="later"))
    store.ingest(log)
    found = store.query("SELECT prediction FROM samples WHERE sample_id = 'q0000'")
    assert list(found["prediction"]) == ["later"] and len(store.query("FROM samples")) == 5


BLOCK_BYTES = 262144  # DuckDB's; the first begins after three headers of 4096 bytes

DAMAGES = {
    "garbage": lambda whole: b"hello" * 1000,
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "header": lambda whole: b"\0" * 100 + whole[100:],
    "a bit per block": lambda whole: bytes(
        byte ^ (at >= 12288 and (at - 12288) % BLOCK_BYTES == 1000) for at, byte in enumerate(whole)
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_corrupt_database_is_kept_aside_rebuilt_and_told(store, told, damage):
    for seed in range(3):
        store.ingest(write_run(store.log_folder, spec(seed=seed), samples=100))
    before = everything(store)
    harmed = DAMAGES[damage](store.path.read_bytes())
    store.path.write_bytes(harmed)
    assert everything(store) == before
    aside = store.path.with_name("x.duckdb.corrupt-1")
    assert len(told) == 1 and str(aside) in told[0] and "rebuilt from 3 logs" in told[0]
    assert aside.read_bytes() == harmed


def test_the_write_ahead_log_of_a_corrupt_database_goes_with_it(store, told):
    store.ingest(write_run(store.log_folder))
    store.path.write_bytes(b"garbage")
    store.path.with_name("x.duckdb.wal").write_bytes(b"its last words")
    assert len(store.runs()) == 1 and len(told) == 1
    assert store.path.with_name("x.duckdb.corrupt-1.wal").read_bytes() == b"its last words"


def test_damage_that_only_a_query_meets_is_mended_too(store, told):
    """The file opens: its catalogue is whole, one block of a large table is not."""
    with RunLog.open(store.log_path(SPEC.run_id), SPEC, HERE) as log:
        log.append(*(record(number, prediction=f"{number * 7919:x}" * 20) for number in range(4_000)))
    store.ingest(log.path)
    where = "SELECT block_id FROM pragma_storage_info('samples') WHERE column_name = 'prediction' AND block_id >= 0"
    whole = bytearray(store.path.read_bytes())
    whole[12288 + store.query(where)["block_id"][0] * BLOCK_BYTES + 1000] ^= 1
    store.path.write_bytes(whole)
    with duckdb.connect(str(store.path), read_only=True) as opened:
        assert opened.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert store.query("SELECT count(DISTINCT prediction) AS n FROM samples")["n"].tolist() == [4_000]
    assert len(told) == 1


def test_mending_is_never_silent_by_default(tmp_path):
    store = Store(tmp_path / "x.duckdb")
    store.ingest(write_run(store.log_folder))
    store.path.write_bytes(b"garbage")
    with pytest.warns(UserWarning, match="is damaged"):
        store.run(SPEC.run_id)


def test_ingest_into_a_corrupt_database_takes_the_new_run_too(store, told):
    store.ingest(write_run(store.log_folder))
    store.path.write_bytes(b"garbage")
    store.ingest(write_run(store.log_folder, spec(seed=1)))
    assert len(store.runs()) == 2 and len(told) == 1


def test_a_locked_store_says_so_after_the_given_wait(tmp_path):
    store = Store(tmp_path / "x.duckdb", lock_timeout_s=0)
    store.rebuild()
    with FileLock(f"{store.path}.lock"), pytest.raises(StoreLocked, match="in use by another process") as problem:
        store.runs()
    assert problem.value.exit_code == 4
    assert store.runs().empty


def test_a_database_open_in_another_program_is_locked_not_corrupt(store, told):
    store.rebuild()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); input()",
            store.path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        holder.stdout.readline()
        with pytest.raises(StoreLocked, match="open in another program"):
            store.runs()
    finally:
        holder.communicate(b"\n")
    assert store.runs().empty and told == []


def test_a_query_can_neither_write_nor_reach_files(store, tmp_path):
    store.rebuild()
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for sql in (
        f"FROM read_csv('{secret}')",
        f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'other.duckdb'}'",
        "SET enable_external_access = true",
        "DELETE FROM runs",
        "FROM nowhere",
        "SELEC 1",
    ):
        with pytest.raises(UsageError, match="refused the query"):
            store.query(sql)
    assert not (tmp_path / "out.csv").exists()
    assert store.query("SELECT ? + 1 AS two", [1])["two"].tolist() == [2]


def test_a_run_is_found_by_the_beginning_of_its_id(store):
    for seed in range(3):
        store.ingest(write_run(store.log_folder, spec(seed=seed), samples=1))
    assert store.run(SPEC.run_id[:8])["run_id"] == SPEC.run_id
    with pytest.raises(UnknownRun, match="no run 'zz'"):
        store.run("zz")
    with pytest.raises(UnknownRun, match="3 runs begin with ''"):
        store.run("")


def test_runs_of_older_code_are_stale_and_unknown_methods_undecided(store):
    fresh = spec(code=current_code("divprune", SPEC.model, SPEC.benchmark))
    for run in (fresh, SPEC, spec(method="./gone.py")):
        store.ingest(write_run(store.log_folder, run, samples=1))
    stale = load(store.path).runs.set_index("run_id")["stale"].to_dict()
    assert stale == {fresh.run_id: False, SPEC.run_id: True, spec(method="./gone.py").run_id: None}
    note = store.path.parent / "submissions" / "batch" / f"{SPEC.run_id}.{fresh.code}.code.json"
    note.parent.mkdir(parents=True)
    note.write_text("{}")
    assert not load(store.path).runs["stale"].dropna().any(), "today's code gave its answers again"


def test_an_older_schema_is_migrated_and_its_rows_stay(store, monkeypatch):
    store.ingest(write_run(store.log_folder))
    newer = (*schema.MIGRATIONS, "ALTER TABLE runs ADD COLUMN verdict VARCHAR DEFAULT 'none'")
    connection = duckdb.connect(str(store.path))
    schema.migrate(connection, newer)
    assert connection.execute("SELECT verdict, n FROM runs").fetchall() == [("none", 6)]
    assert connection.execute("SELECT schema_version FROM meta").fetchall() == [(len(newer),)]
    schema.migrate(connection, newer)  # nothing left to do
    connection.close()
    with pytest.raises(UsageError, match=f"schema {len(newer)}, this harness knows {len(newer) - 1}"):
        store.runs()


def test_a_store_without_tables_yet_is_migrated_when_read(store):
    duckdb.connect(str(store.path)).close()
    assert store.runs().empty


def test_a_foreign_database_is_left_alone(store, told):
    with duckdb.connect(str(store.path)) as connection:
        connection.execute("CREATE TABLE mine (a INTEGER)")
    with pytest.raises(UsageError, match="not a store"):
        store.ingest(write_run(store.log_folder))
    assert told == []


def test_a_failed_migration_changes_nothing(store):
    store.ingest(write_run(store.log_folder))
    with duckdb.connect(str(store.path)) as connection, pytest.raises(duckdb.Error):
        schema.migrate(connection, (*schema.MIGRATIONS, "ALTER TABLE runs ADD COLUMN a INTEGER; SELECT broken"))
    assert "a" not in store.runs().columns


def test_a_failing_ingest_leaves_the_old_rows(store, monkeypatch):
    path = write_run(store.log_folder)
    store.ingest(path)
    before = everything(store)
    monkeypatch.setattr("harness.store.rows._environments", lambda contents: [{"run_id": "x"}])
    with pytest.raises(duckdb.InvalidInputException, match="does not have key"):
        store.ingest(path)
    monkeypatch.undo()
    assert everything(store) == before


def test_a_failing_rebuild_leaves_the_old_database(store, monkeypatch):
    store.ingest(write_run(store.log_folder))

    def full(connection, runs):
        raise duckdb.IOException("IO Error: Could not write file: No space left on device")

    monkeypatch.setattr("harness.store.database.replace_runs", full)
    with pytest.raises(DiskFull, match="db rebuild"):
        store.rebuild()
    assert store.run(SPEC.run_id)["n"] == 6


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="another --store"):
        Store(tmp_path / "file" / "x.duckdb").rebuild()


_INGESTER = """
import os, signal, sys
from pathlib import Path
from harness.store import database
from harness.store.database import Store

done = database.replace_runs
def killed(connection, runs):
    ids = done(connection, runs)
    if sys.argv[3] == "before commit":
        os.kill(os.getpid(), signal.SIGKILL)
    return ids
database.replace_runs = killed
taken = Store(Path(sys.argv[1]))
if sys.argv[3] == "after commit":
    real = database._replace_runs
    database._replace_runs = lambda *args: (real(*args), os.kill(os.getpid(), signal.SIGKILL))
taken.ingest(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("moment", ["before commit", "after commit"])
def test_a_process_killed_while_ingesting_leaves_all_or_nothing(store, moment, told):
    store.ingest(write_run(store.log_folder))
    before = everything(store)
    other = write_run(store.log_folder, spec(seed=1))
    words = [sys.executable, "-c", _INGESTER, str(store.path), str(other), moment]
    killed = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    after = everything(store)
    assert (after == before) if moment == "before commit" else len(after["runs"]) == 2
    store.ingest(other)
    assert len(store.runs()) == 2 and told == []


def test_processes_that_finish_together_all_get_their_turn(store, told):
    logs = [write_run(store.log_folder, spec(seed=seed), samples=2) for seed in range(4)]
    ingest = "import sys; from pathlib import Path; from harness.store.database import Store; "
    ingest += "Store(sys.argv[1], lock_timeout_s=60).ingest(Path(sys.argv[2]))"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", ingest, str(store.path), str(log)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for log in logs
    ]
    while any(worker.poll() is None for worker in workers):
        with suppress(subprocess.TimeoutExpired):  # leave them room between two looks
            next(worker for worker in workers if worker.returncode is None).wait(timeout=0.2)
        assert len(store.runs()) == len(store.query("SELECT DISTINCT run_id FROM samples"))  # no half-taken run
    assert [worker.returncode for worker in workers] == [0] * 4
    assert len(store.runs()) == 4 and told == []


def test_loading_a_store_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(UsageError, match="harness run"):
        load(tmp_path / "none.duckdb")


def test_the_default_store_lies_in_the_checkout_or_with_the_user(tmp_path, monkeypatch):
    inside = tmp_path / "checkout" / "docs"
    inside.mkdir(parents=True)
    (tmp_path / "checkout" / "pyproject.toml").write_text('[project]\nname = "visual-token-pruning"\n')
    monkeypatch.chdir(inside)
    assert default_store_path() == tmp_path / "checkout" / "results" / "local.duckdb"
    (tmp_path / "checkout" / "pyproject.toml").write_text('[project]\nname = "another"\n')
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_store_path() == tmp_path / "data" / "visual-token-pruning" / "local.duckdb"
