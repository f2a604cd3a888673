"""Slow proofs of the main job on the embedded model and suite, through the command line as a user has it."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.store.database import load
from harness.store.log_reader import read_log

pytestmark = pytest.mark.proof
METHODS = ("vprune", "quietprune", "divprune", "fastv", "random", "grid")


def command(store: Path, *words: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("harness")),
        "run",
        "--store",
        str(store),
        "--no-timing",
        "--json",
        *words,
    ]


@pytest.mark.parametrize("budget", ["50%", "25%", "11%"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_meets_every_budget_on_every_sample(method, budget, tmp_path_factory):
    store = tmp_path_factory.getbasetemp() / "shared.duckdb"
    words = ("--method", method, "--budget", budget, "--limit", "40")
    done = subprocess.run(command(store, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["status"] == "ok"
    samples = load(store).samples
    mine = samples[samples.run_id == document["run_id"]]
    assert len(mine) == 40
    realised = mine.entering.map(lambda layers: sum(layers) / len(layers))
    assert ((realised - mine.asked_tokens).abs() <= 1).all()


def test_a_run_killed_at_random_moments_ends_with_the_records_of_an_uninterrupted_one(tmp_path):
    words = ("--method", "random", "--budget", "25%", "--limit", "60")
    begun = time.monotonic()
    whole = json.loads(subprocess.run(command(tmp_path / "a.duckdb", *words), capture_output=True, check=True).stdout)
    length_s = time.monotonic() - begun
    moments, kills = random.Random(0), 0
    for _ in range(40):
        running = subprocess.Popen(command(tmp_path / "b.duckdb", *words), stdout=subprocess.PIPE)
        try:
            running.wait(timeout=moments.uniform(0.3, 0.8) * length_s)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            kills += 1
        out, _ = running.communicate()
        if running.returncode == 0:
            break
    assert kills >= 1
    parts = json.loads(out)
    assert parts["run_id"] == whole["run_id"] and parts["accuracy"] == whole["accuracy"]
    records = [
        {
            record.sample_id: (record.prediction, record.score, record.entering, record.kept)
            for record in log.records.values()
        }
        for log in (read_log(tmp_path / f"{name}.runs" / f"{whole['run_id']}.jsonl") for name in "ab")
    ]
    assert records[0] == records[1] and len(records[0]) == 60
