"""Calling the command line in this process, as a user would."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.benchmarks import registry
from harness.benchmarks.embedded import open_suite
from harness.cli import main, stores
from harness.store.database import Store


@dataclass(frozen=True)
class Said:
    """What one command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as the one JSON document that it must be."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The last line on stderr; there must be no traceback before it."""
        assert "Traceback" not in self.err, self.err
        return self.err.strip().splitlines()[-1]


Command = Callable[..., Said]


def commands_over(
    suite: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """A function that runs `harness WORDS` with `suite` for the embedded one and a store in `folder`."""
    quick_of = {"reference": False, "reference-quick": True}
    openers = {name: partial(open_suite, name, suite, quick=quick) for name, quick in quick_of.items()}
    monkeypatch.setattr(registry, "EMBEDDED_SUITES", openers)
    return commands_in(folder, monkeypatch, capsys)


def commands_in(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A function that runs `harness WORDS` with a store in `folder`."""
    monkeypatch.setattr(
        stores, "open_store", lambda path: Store(path or folder / "store.duckdb", lock_timeout_s=0.1, tell=print_err)
    )

    def command(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["harness", *words])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        printed = capsys.readouterr()
        return Said(code, printed.out, printed.err)

    return command


def print_err(message: str) -> None:
    print(message, file=sys.stderr)
