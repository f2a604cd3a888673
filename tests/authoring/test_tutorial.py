"""The tutorial and the examples in the helps, typed line by line in an empty folder.

In this process on eight questions with whatever takes long cut short; the proofs type them as they are written.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command, commands_over
from PIL import Image
from typer.main import get_command

from harness.cli import app, board, stores
from harness.cli.examples import EXAMPLES
from harness.records.provenance import GitState
from harness.run import runner

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```(\S*) ?(\S*)\n(.*?)^```", (ROOT / "docs/tutorial.md").read_text(), flags=re.S | re.M)
SHORTER = {  # words added to what would take minutes; later ones win
    "validate": ("--family", "qwen3_vl", "--unconfined"),
    "run": ("--minutes", "0.01"),
    "bench": ("--minutes", "0.02", "--pairs", "5"),
    "export": ("--results", "results"),  # what lies here, without the shipped runs
    "train-adapter": ("--steps", "1", "--batch", "1"),
}


@pytest.fixture
def harness(
    suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command line in an empty folder, on eight questions, from code that is in no checkout; a store of its own."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(runner, "git_state", lambda: GitState(None, None))
    opened = stores.open_store
    command = commands_over(suite_folder, tmp_path, monkeypatch, capsys)
    monkeypatch.setattr(stores, "open_store", opened)
    return command


def lines_of(body: str) -> list[str]:
    return [line for line in body.splitlines() if line and not line.startswith("#")]


def batch() -> str:
    """The one batch of submissions here."""
    (found,) = Path("results/submissions").iterdir()
    return found.name


def test_the_tutorial_can_be_typed(harness: Command):
    commands = 0
    for language, file, body in BLOCKS:
        if language == "python" and file:
            assert len(body.splitlines()) <= 60
            Path(file).write_text(body)
        elif language == "python":
            exec(body, {})
        for line in lines_of(body) if language == "console" else ():
            program, *words = shlex.split(line)
            if program == "pytest":
                claims = runpy.run_path(words[0])
                for name in [name for name in claims if name.startswith("test_")]:
                    claims[name]()
                continue
            said = harness(*words, *SHORTER.get(words[0], ()))
            assert said.code == 0 and "Traceback" not in said.err, f"{line}\n{said.out}\n{said.err}"
            commands += 1
    assert commands >= 10
    assert Path("report.html").is_file() and Path("site/index.html").is_file()
    assert batch()


def verbs(command=None, before: str = "") -> Iterator[str]:
    """Every verb, those of groups with the group in front."""
    for name, inner in (command or get_command(app)).commands.items():
        full = f"{before} {name}".strip()
        if hasattr(inner, "commands"):
            yield from verbs(inner, full)
        else:
            yield full


def test_the_help_of_every_verb_ends_with_an_example(harness: Command):
    assert set(verbs()) == set(EXAMPLES)
    for verb, line in EXAMPLES.items():
        assert line.startswith(f"harness {verb}")
        assert " ".join(harness(*verb.split(), "--help").out.split()).endswith(f"Example: {line}")


def test_every_verb_stands_in_one_of_five_panels(harness: Command):
    told = harness("--help").out
    panels = [panel for panel in re.findall(r"╭─ (\w+) ─", told) if panel != "Options"]
    assert panels == ["Run", "Look", "Contribute", "Measure", "Maintain"]
    assert set(re.findall(r"^│ ([a-z-]+) ", told, flags=re.M)) >= {verb.split()[0] for verb in EXAMPLES}


def lay_out(folder: Path) -> None:
    """The files that the examples speak of: questions to train on, and results of another tool."""
    Image.new("RGB", (64, 64), "red").save(folder / "a.png")
    (folder / "questions.jsonl").write_text('{"image": "a.png", "question": "color of the sun?", "answer": "red"}')
    logs = folder / "logs/llava-hf__llava-1.5-7b-hf"
    logs.mkdir(parents=True)
    told = {
        "results": {"pope": {"pope_accuracy,none": 0.75, "alias": "pope"}},
        "n-samples": {"pope": {"original": 4, "effective": 4}},
        "config": {"model": "llava_hf", "model_args": "pretrained=x", "limit": None},
        "model_name": "llava-1.5-7b",
        "git_hash": "75571cfe",
    }
    (logs / "20260101_000000_results.json").write_text(json.dumps(told))


def test_the_example_of_every_help_runs(harness: Command, monkeypatch: pytest.MonkeyPatch):
    def closed(*server: object) -> None:
        raise KeyboardInterrupt

    lay_out(Path.cwd())
    monkeypatch.setattr(board, "_command", lambda *given: [sys.executable, "-c", ""])
    monkeypatch.setattr(board, "_wait", closed)
    for verb, line in EXAMPLES.items():
        words = shlex.split(line.replace("BATCH", batch() if "BATCH" in line else ""))[1:]
        said = harness(*words, *SHORTER.get(verb, ()))
        assert said.code == 0 and "Traceback" not in said.err, f"{line}\n{said.out}\n{said.err}"


def typed(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line typed in a shell by somebody whose home folder is empty."""
    bin_ = str(Path(sys.executable).parent)
    environment = {
        "HOME": str(folder.parent),
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.proof
def test_the_tutorial_can_be_typed_as_it_is_written(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for language, file, body in BLOCKS:
        if file:
            (folder / file).write_text(body)
        elif language == "python":
            (folder / "own_code.py").write_text(body)
            assert typed(f"{sys.executable} own_code.py", folder).returncode == 0
        for line in lines_of(body) if language == "console" else ():
            done = typed(line, folder)
            dirty = "submit" in line and "in no commit" in done.stderr  # a checkout that is being worked on
            assert done.returncode == 0 or dirty, f"{line}\n{done.stdout}\n{done.stderr}"
