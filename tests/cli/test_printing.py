from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from harness.cli.printing import WIDE, plain, print_json, print_rows, spell


@pytest.mark.parametrize("missing", [float("nan"), float("inf"), np.float64("nan"), pd.NA, pd.NaT, None])
def test_what_json_cannot_say_is_null(missing: object):
    assert plain({"value": [missing]}) == {"value": [None]}


def test_numbers_times_and_tuples_become_plain():
    found = plain({"n": np.int64(3), "b": np.bool_(True), "t": datetime(2026, 1, 2), "l": (1, 2.5)})
    assert found == {"n": 3, "b": True, "t": "2026-01-02T00:00:00", "l": [1, 2.5]}
    assert type(found["n"]) is int and type(found["b"]) is bool


def test_json_is_printed_whole_and_alone(capsys: pytest.CaptureFixture[str]):
    print_json([{"name": "é"}])
    assert capsys.readouterr().out == '[\n  {\n    "name": "é"\n  }\n]\n'


def test_a_table_for_a_pipe_is_not_broken(capsys: pytest.CaptureFixture[str]):
    print_rows([{"name": "a" * 100, "fit": False}], ("name", "fit"))
    assert "a" * 100 + "  no" in capsys.readouterr().out.splitlines()[1] and WIDE > 100


@pytest.mark.parametrize(
    ("value", "cell"),
    [(None, "–"), (True, "yes"), (0.5, "0.500"), ([], "–"), (["a", 2], "a, 2"), ({"x": 1}, "x 1"), ("", "–"), (3, "3")],
)
def test_a_cell(value: object, cell: str):
    assert spell(value) == cell
