"""How long the store takes to read sample rows from run logs into DuckDB, as `harness db rebuild` does.

    python benchmarks/store_load.py [--rows 1000000] [--questions 5000]

Unit: seconds on the clock and of processor time, of the whole process. The logs are synthetic and as long as real ones:
every line is checked and parsed, every run replaced in its tables. "ingest" is one more run put into the full store, as
at the end of each run.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.records.figures import OK, Figures
from harness.records.records import Environment, Record
from harness.records.run_spec import RunSpec
from harness.store.database import Store
from harness.store.log_reader import encode_line
from harness.store.log_writer import RunLog

LAYERS, UNITS = 28, 256
LIMIT_S = 10.0
SPEC = RunSpec(
    method="synthetic", settings={"keep": 0.5}, model="synthetic", model_revision="r", benchmark="synthetic",
    benchmark_revision="b", budget_kind="layer_average", budget_value=0.5, seed=0, limit=None, sample_ids="s",
    dtype="float32", attention="sdpa", image_backend="pil", device="cpu", code="c",
)  # fmt: skip


def record(number: int, chance: random.Random) -> Record:
    """A record like those of a real run: what every layer saw, a mask, FLOPs by stage."""
    return Record(
        sample_id=f"question-{number:06d}",
        cluster=f"image-{number // 2:06d}",
        category=f"kind-{number % 6}",
        answer="yes",
        prediction="Yes, there is.",
        score=float(chance.random() < 0.8),
        full_tokens=UNITS,
        asked_tokens=UNITS // 2,
        entering=(UNITS // 2,) * LAYERS,
        kept={"interface": f"{chance.getrandbits(UNITS):064x}"},
        recall_of_target=chance.random(),
        seconds=chance.random(),
        flops={key: chance.getrandbits(40) for key in ("vit", "projector", "select", "llm", "total", "paper_2ndm")},
    )


def write_logs(store: Store, rows: int, questions: int) -> int:
    """Logs of that many records in all, each run with the same ones under its own seed. Gives their bytes."""
    chance = random.Random(0)
    lines = "".join(encode_line("record", vars(record(number, chance))) for number in range(questions))
    for seed in range(rows // questions):
        spec = dataclasses.replace(SPEC, seed=seed)
        path = store.log_path(spec.run_id)
        with RunLog.open(path, spec, Environment("machine", {"cpu": "synthetic"})) as log:
            with path.open("a") as file:
                file.write(lines)
            log.finish(Figures(OK, n=questions, accuracy=0.8))
    return sum(path.stat().st_size for path in store.log_folder.glob("*.jsonl"))


def timed(name: str, work: Callable[[], object]) -> float:
    """Seconds on the clock, which are also printed."""
    began, began_cpu = time.perf_counter(), time.process_time()
    work()
    seconds = time.perf_counter() - began
    print(f"{name:<28}{seconds:>10.2f} s{time.process_time() - began_cpu:>10.2f} s of processor time")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=5000, help="records of one run")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store.duckdb")
        size = write_logs(store, asked.rows, asked.questions)
        print(f"{asked.rows} sample rows in {asked.rows // asked.questions} logs of {size / 1e6:.0f} MB in all")
        seconds = timed("rebuild from all logs", store.rebuild)
        count = store.query("SELECT count(*) AS n FROM samples")["n"][0]
        assert count == asked.rows // asked.questions * asked.questions, count
        timed("ingest one log again", lambda: store.ingest(next(store.log_folder.glob("*.jsonl"))))
    print(f"1e6 rows: {seconds * 1e6 / asked.rows:.1f} s, limit {LIMIT_S:g} s")


if __name__ == "__main__":
    main()
