"""Real processes that are interrupted and killed, on the embedded model and suite."""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.log_contents import read_log
from harness.records import Record

ROOT = Path(__file__).resolve().parent.parent
WORDS = ["run", "--method", "random", "--no-timing"]


def start(store: Path, limit: int) -> subprocess.Popen[str]:
    code = "from harness.cli import main; main()"
    command = [sys.executable, "-c", code, *WORDS, "--limit", str(limit), "--store", str(store)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines_in(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))


def wait_for_lines(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Until the logs hold so many lines or the process has ended."""
    while process.poll() is None and lines_in(folder) < count:
        time.sleep(0.005)


def records_in(folder: Path) -> dict[str, dict[str, Record]]:
    """Method -> sample id -> record without its wall time."""
    found = {}
    for path in folder.glob("*.jsonl"):
        contents = read_log(path)
        assert contents is not None and contents.figures is not None
        found[contents.spec.method] = {
            name: dataclasses.replace(record, seconds=0.0) for name, record in contents.records.items()
        }
    return found


def test_ctrl_c_finishes_the_sample_tells_how_to_continue_and_exits_130(tmp_path: Path):
    process = start(tmp_path / "store.duckdb", limit=200)
    wait_for_lines(process, tmp_path / "store.runs", 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and out == ""
    assert "stopping after this sample" in err and "of 200 samples of unpruned; nothing is lost" in err
    assert "continue with: harness" not in err.splitlines()[0] and "--method random" in err.splitlines()[-1]
    (log,) = (tmp_path / "store.runs").glob("*.jsonl")
    contents = read_log(log)
    assert contents is not None and contents.records and contents.dropped_bytes == 0


@pytest.mark.proof
def test_killed_at_random_moments_a_run_ends_with_the_records_of_an_undisturbed_one(tmp_path: Path):
    undisturbed = start(tmp_path / "whole.duckdb", limit=12)
    undisturbed.communicate(timeout=600)
    assert undisturbed.returncode == 0
    kills, moments = 0, random.Random(5)
    for _ in range(30):
        process = start(tmp_path / "torn.duckdb", limit=12)
        folder = tmp_path / "torn.runs"
        wait_for_lines(process, folder, lines_in(folder) + moments.randint(1, 6))
        time.sleep(moments.random() * 0.1)
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
    assert process.returncode == 0 and kills >= 3
    assert records_in(tmp_path / "torn.runs") == records_in(tmp_path / "whole.runs")
