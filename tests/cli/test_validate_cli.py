"""`harness validate` as it is typed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Command, commands_in

from harness.validate.contract import CHECKS

GOLDEN = Path(__file__).parents[1] / "golden"
BROKEN = """
from dataclasses import dataclass
import torch
from methods.base import INTERFACE, Pruner, Selection

@dataclass(frozen=True)
class Twice(Pruner):
    name = "twice"
    hooks = (INTERFACE,)

    def at_interface(self, view):
        return Selection(torch.zeros(view.keep, dtype=torch.int64))
"""


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return commands_in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "golden"
    found.mkdir()
    for name in ("divprune_n64_k16.npz", "vispruner_fragile_n576_t64_r050.npz", "fastv_weights_m1_L6_H4_KV4.npz"):
        shutil.copy(GOLDEN / name, found)
    return found


def test_golden_files_are_one_array_in_json_and_a_table_without(harness: Command, folder: Path):
    said = harness("validate", "--golden", str(folder), "--json")
    assert said.code == 0
    assert {row["file"].split("_")[0]: row["status"] for row in said.document} == {
        "divprune": "pass", "fastv": "weights", "vispruner": "not_assertable"
    }  # fmt: skip
    table = harness("validate", "--golden", str(folder))
    assert "divprune_n64_k16.npz" in table.out and "not_assertable" in table.out
    assert "1 pass; 0 fail; 1 are weights of others; 1 cannot be asserted whole" in table.complaint


def test_one_wrong_file_is_exit_1_and_says_what_differs(harness: Command, folder: Path):
    arrays = dict(np.load(folder / "divprune_n64_k16.npz"))
    arrays["kept_sorted"] = arrays["kept_sorted"][::-1]
    np.savez(folder / "divprune_n64_k16.npz", **arrays)
    said = harness("validate", "--golden", str(folder), "--json")
    assert said.code == 1
    (wrong,) = [row for row in said.document if row["status"] == "fail"]
    assert wrong["file"] == "divprune_n64_k16.npz" and "kept_sorted" in wrong["detail"]


def test_a_method_is_told_check_by_check(harness: Command):
    said = harness("validate", "random", "--family", "qwen3_vl", "--json")
    assert said.code == 0
    assert [row["check"] for row in said.document] == [check.name for check in CHECKS]
    assert {row["method"] for row in said.document} == {"random"}
    assert all(row["status"] == "pass" and row["detail"] for row in said.document)


def test_a_broken_file_of_ones_own_is_exit_1(harness: Command, tmp_path: Path):
    path = tmp_path / "twice.py"
    path.write_text(BROKEN)
    said = harness("validate", str(path), "--family", "qwen3_vl", "--unconfined")
    assert said.code == 1
    assert "keep names a row twice" in said.out
    assert "selection fails on qwen3_vl" in said.err and "Traceback" not in said.err


def test_a_file_is_judged_in_a_process_of_its_own_unless_it_is_trusted(harness: Command, tmp_path: Path):
    path = tmp_path / "twice.py"
    path.write_text(f"import os\nprint('here', os.getpid())\n{BROKEN}\nos.mkdir({str(tmp_path / 'made')!r})\n")
    said = harness("validate", str(path), "--json")
    assert said.code == 1 and [row["check"] for row in said.document] == ["conduct"]
    assert "os.mkdir" in said.document[0]["detail"] and "conduct fails" in said.err
    assert "here" in said.err and f"here {os.getpid()}" not in said.err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "words",
    [(), ("fastv", "--golden", str(GOLDEN)), ("fastvv",), ("--golden", "nowhere"), ("fastv", "--family", "gpt"),
     ("fastv:k9",), ("./none.py",)],
)  # fmt: skip
def test_what_cannot_be_acted_on_is_a_usage_error(harness: Command, words: tuple[str, ...]):
    said = harness("validate", *words)
    assert said.code == 2 and said.complaint


@pytest.mark.parametrize(
    ("text", "word"),
    [("def x(:", "SyntaxError"), ("import nothere", "nothere"), (BROKEN.replace('name = "twice"', ""), "has no name"),
     (BROKEN.replace('name = "twice"', 'name = "t"\n    q: int'), "'q'")],
)  # fmt: skip
def test_a_file_that_cannot_be_built_is_a_usage_error(harness: Command, tmp_path: Path, text: str, word: str):
    path = tmp_path / "mine.py"
    path.write_text(text)
    said = harness("validate", str(path), "--unconfined")
    assert said.code == 2 and word in said.complaint
