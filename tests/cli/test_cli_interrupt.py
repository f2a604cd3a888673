"""A real process that is interrupted, on the embedded model and suite."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from harness.store.log_reader import read_log

ROOT = Path(__file__).resolve().parents[2]
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
