"""A run's log loses nothing that was acknowledged, and believes nothing that was damaged."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from logged_runs import FIGURES, HERE, SPEC, latency, record, spec, write_run

from harness.records.errors import CorruptLog, DiskFull, StoreLocked
from harness.records.figures import ERROR, Figures
from harness.records.records import Environment
from harness.store.log_reader import encode_line, read_log
from harness.store.log_writer import RunLog, set_aside

ROOT = Path(__file__).resolve().parents[2]


def test_what_was_written_is_read_back(tmp_path):
    contents = read_log(write_run(tmp_path))
    assert list(contents.records.values()) == [record(number) for number in range(6)]
    assert [row for _, row in contents.latencies] == [latency(0, "base"), latency(0, "pruned")]
    assert contents.resources[0][1].name == "peak_allocated_bytes"
    assert contents.spec.run_id == SPEC.run_id
    assert (contents.figures.accuracy, contents.figures.accuracy_high) == (FIGURES.accuracy, None)  # NaN is None
    assert contents.finished_at >= contents.sessions[0].at and contents.finished_at.tzinfo is None
    assert contents.dropped_bytes == 0


def test_every_line_is_json_that_other_tools_can_read(tmp_path):
    kinds = [json.loads(line)["kind"] for line in write_run(tmp_path).read_text().splitlines()]
    assert kinds == ["header", *["record"] * 6, "latency", "latency", "resource", "footer"]


def test_a_record_is_on_its_way_to_the_disk_when_append_returns(tmp_path):
    with RunLog.open(tmp_path / "a.jsonl", SPEC, HERE) as log:
        log.append(record(0))
        assert list(read_log(log.path).records) == ["q0000"]


def test_resuming_skips_what_is_done_and_keeps_both_environments(tmp_path):
    path = tmp_path / "a.jsonl"
    elsewhere = Environment("machine-b")
    with RunLog.open(path, SPEC, HERE) as log:
        log.append(record(0), latency(0, "base"))
    with RunLog.open(path, SPEC, elsewhere) as log:
        assert log.done == {"q0000"}
        log.append(record(1), latency(1, "base"))
        assert log.done == {"q0000", "q0001"}
    contents = read_log(path)
    assert [session.environment for session in contents.sessions] == [HERE, elsewhere]
    assert [machine for machine, _ in contents.latencies] == ["machine-a", "machine-b"]


def test_a_log_cut_anywhere_resumes_to_the_same_records(tmp_path):
    whole = write_run(tmp_path, samples=3).read_bytes()
    expected = [record(number) for number in range(3)]
    path = tmp_path / "cut.jsonl"
    ends = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for length in {*range(0, len(whole), 29), *ends, *(end + 1 for end in ends), *(end + 2 for end in ends[:-1])}:
        path.write_bytes(whole[:length])
        with RunLog.open(path, SPEC, HERE) as log:
            complete = whole[:length].count(b"\n")
            assert len(log.done) == min(max(complete - 1, 0), 3)
            assert path.read_bytes().startswith(whole[:length].rpartition(b"\n")[0]) or not complete
            for number in range(3):
                if record(number).sample_id not in log.done:
                    log.append(record(number))
            log.finish(FIGURES)
        assert list(read_log(path).records.values()) == expected
        if complete:
            torn = length - whole[:length].rfind(b"\n") - 1
            assert read_log(path).sessions[1].dropped_bytes == torn


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_never_believed(tmp_path, seed):
    path = write_run(tmp_path)
    whole = path.read_bytes()
    draw = random.Random(seed)
    at = draw.randrange(len(whole))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
    damaged = path.read_bytes()
    line = whole[:at].count(b"\n") + 1
    if line == whole.count(b"\n"):  # the footer: a damaged tail
        assert read_log(path).figures is None
        return
    with pytest.raises(CorruptLog, match=rf"line {line} is damaged.*--force"):
        RunLog.open(path, SPEC, HERE)
    assert path.read_bytes() == damaged, "an error must not change the log"


def test_restart_keeps_the_damaged_log_beside_the_new_one(tmp_path):
    path = write_run(tmp_path)
    damaged = path.read_bytes().replace(b"q0001", b"q0009")
    path.write_bytes(damaged)
    with RunLog.open(path, SPEC, HERE, restart=True) as log:
        assert log.done == set()
    assert path.with_name(path.name + ".aside-1").read_bytes() == damaged
    assert set_aside(path, "aside").name.endswith(".aside-2")


def test_a_log_of_another_run_is_refused(tmp_path):
    path = write_run(tmp_path)
    other = spec(seed=1)
    with pytest.raises(CorruptLog, match=f"{SPEC.run_id}, not {other.run_id}"):
        RunLog.open(path, other, HERE)


def test_a_good_line_without_sense_is_named(tmp_path):
    path = write_run(tmp_path)
    with path.open("a") as file:
        file.write(encode_line("record", {"sample_id": "x", "entering": []}))
    with pytest.raises(CorruptLog, match="line 12 makes no sense"):
        read_log(path)


def test_the_later_of_two_records_of_one_sample_wins(tmp_path):
    with RunLog.open(tmp_path / "a.jsonl", SPEC, HERE) as log:
        log.append(record(0, error="out of memory", score=0.0), record(1))
        log.append(record(0))
    assert list(read_log(log.path).records.values()) == [record(0), record(1)]


def test_a_footer_counts_only_while_nothing_follows_it(tmp_path):
    path = write_run(tmp_path)
    with RunLog.open(path, SPEC, HERE) as log:
        assert log.contents.figures.status == "ok"
        assert read_log(path).figures is not None  # opening alone changes no result
        log.append(record(7))
        assert read_log(path).figures is None
        log.finish(Figures(ERROR, message="stopped"))
    assert read_log(path).figures == Figures(ERROR, message="stopped")


def test_a_second_writer_is_refused_and_the_lock_goes_with_its_holder(tmp_path):
    path = tmp_path / "a.jsonl"
    with RunLog.open(path, SPEC, HERE), pytest.raises(StoreLocked, match="another process is writing"):
        RunLog.open(path, SPEC, HERE)
    RunLog.open(path, SPEC, HERE).close()


def test_a_log_that_cannot_be_continued_gives_its_lock_back(tmp_path):
    path = write_run(tmp_path)
    with pytest.raises(CorruptLog) as _kept:  # its traceback holds the frames, so nothing is freed by chance
        RunLog.open(path, spec(seed=1), HERE)
    RunLog.open(path, SPEC, HERE).close()


def test_nan_is_no_score(tmp_path):
    with RunLog.open(tmp_path / "a.jsonl", SPEC, HERE) as log, pytest.raises(ValueError):
        log.append(record(0, score=float("nan")))


def test_a_full_disk_leaves_everything_before_it_and_resumes(tmp_path):
    """A real short write: the file-size limit stops it in the middle of a line, as a full disk does."""
    path = tmp_path / "a.jsonl"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with RunLog.open(path, SPEC, HERE) as log:
                log.append(record(0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, resource.RLIM_INFINITY))
                try:
                    log.append(record(1))
                except DiskFull as problem:
                    status = 0 if "free some space" in str(problem) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    contents = read_log(path)
    assert (list(contents.records), contents.dropped_bytes) == (["q0000"], 0)
    with RunLog.open(path, SPEC, HERE) as log:
        log.append(record(1))
    assert list(read_log(path).records.values()) == [record(0), record(1)]


def test_no_space_left_is_said_as_such(tmp_path, monkeypatch):
    def full(descriptor, raw):
        raise OSError(errno.ENOSPC, "No space left on device")

    with RunLog.open(tmp_path / "a.jsonl", SPEC, HERE) as log:
        monkeypatch.setattr("harness.store.log_writer.os.write", full)
        with pytest.raises(DiskFull, match="no space left"):
            log.append(record(0))
        assert log.done == set()


_WRITER = """
import sys
from pathlib import Path
from harness.store.log_writer import RunLog
from logged_runs import FIGURES, HERE, SPEC, record

with RunLog.open(Path(sys.argv[1]), SPEC, HERE) as log:
    for number in range(300):
        if record(number).sample_id not in log.done:
            log.append(record(number))
            print(record(number).sample_id, flush=True)
    log.finish(FIGURES)
"""


def test_killed_at_random_moments_and_resumed_it_equals_an_undisturbed_run(tmp_path):
    path = tmp_path / "a.jsonl"
    draw = random.Random(0)
    acknowledged: set[str] = set()
    for kill_after in (draw.randrange(60), draw.randrange(60), draw.randrange(60), None):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for count, line in enumerate(writer.stdout, start=1):
            assert line.strip() not in acknowledged, "a sample that was done is never done again"
            acknowledged.add(line.strip())
            if kill_after is not None and count > kill_after:
                writer.send_signal(signal.SIGKILL)
                break
        for line in writer.stdout:  # what it still acknowledged before it died
            acknowledged.add(line.strip())
        writer.stdout.close()
        writer.wait()
        assert acknowledged <= set(read_log(path).records), "an acknowledged record is in the log"
    assert list(read_log(path).records.values()) == [record(number) for number in range(300)]
    assert read_log(path).figures is not None and len(read_log(path).sessions) == 4
