"""A run's identity changes with everything that can change an answer, and with nothing else."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from harness.records.provenance import (
    ANSWER_MODULES,
    ROOT,
    code_hash,
    current_code,
    git_state,
    method_file,
    sample_ids_hash,
)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy in miniature: two modules that matter, two that do not, a method."""
    for name in ("methods/base.py", "harness/models/engine.py", "harness/latency/clock.py", "harness/cli/app.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a = 1\nb = 2\n")
    (tmp_path / "methods" / "mine.py").write_bytes(b"keep = 1\n")
    return tmp_path


def test_every_listed_module_exists():
    assert all(list(ROOT.glob(pattern)) for pattern in ANSWER_MODULES)


def test_the_hash_is_what_it_says(checkout):
    total = hashlib.sha256(b"keep = 1\n")
    for name in ("harness/models/engine.py", "methods/base.py"):
        total.update(f"\n{name}\na = 1\nb = 2\n".encode())
    assert code_hash(checkout / "methods" / "mine.py", checkout) == total.hexdigest()[:16]


@pytest.mark.parametrize("name", ["methods/mine.py", "methods/base.py", "harness/models/engine.py"])
def test_a_change_that_can_touch_answers_changes_it(checkout, name):
    before = code_hash(checkout / "methods" / "mine.py", checkout)
    (checkout / name).write_bytes(b"a = 3\n")
    assert code_hash(checkout / "methods" / "mine.py", checkout) != before


def test_a_new_module_and_a_renamed_one_change_it(checkout):
    hashes = {code_hash(checkout / "methods" / "mine.py", checkout)}
    (checkout / "harness/models/new.py").write_bytes(b"")
    hashes.add(code_hash(checkout / "methods" / "mine.py", checkout))
    (checkout / "harness/models/new.py").rename(checkout / "harness/models/newer.py")
    hashes.add(code_hash(checkout / "methods" / "mine.py", checkout))
    assert len(hashes) == 3


def test_timing_command_line_other_methods_place_and_line_endings_do_not(checkout):
    before = code_hash(checkout / "methods" / "mine.py", checkout)
    (checkout / "harness/latency/clock.py").write_bytes(b"changed")
    (checkout / "harness/cli/app.py").write_bytes(b"changed")
    (checkout / "methods/other.py").write_bytes(b"new")
    (checkout / "methods/base.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    (checkout / "methods/mine.py").rename(checkout / "moved.py")
    assert code_hash(checkout / "moved.py", checkout) == before


def test_a_method_is_found_by_name_and_by_path(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    assert method_file("mine", checkout) == checkout / "methods" / "mine.py"
    assert method_file("./methods/mine.py:Mine", checkout) == Path("methods/mine.py")
    assert method_file("gone", checkout) is None and current_code("./gone.py", checkout) is None
    assert current_code("mine", checkout) == current_code("./methods/mine.py", checkout)


def test_sample_ids_count_in_order_and_do_not_run_together():
    assert sample_ids_hash(["a", "b"]) == sample_ids_hash(iter(["a", "b"]))
    assert len({sample_ids_hash(ids) for ids in ([], ["a", "b"], ["b", "a"], ["ab"], ["a\nb"], ["a", "", "b"])}) == 6


def test_git_state_outside_a_repository_is_unknown(checkout):
    assert (git_state(checkout).commit, git_state(checkout).dirty) == (None, None)


def test_git_state_without_git_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state().commit is None


def test_git_state_names_the_commit_and_sees_changes(checkout):
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", "-C", checkout, *who, *words], check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "someone else's")
    assert git_state(checkout).commit is None, "a repository that does not track us says nothing about us"
    (checkout / "harness" / "records").mkdir()
    (checkout / "harness" / "records" / "records.py").write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "ours")
    assert git_state(checkout).commit == git("rev-parse", "HEAD").strip() and git_state(checkout).dirty is False
    (checkout / "results").mkdir()
    (checkout / "results" / "new.json").write_text("")
    assert git_state(checkout).dirty is False, "a result is no code"
    (checkout / "new.py").write_text("")
    assert git_state(checkout).dirty is True
