"""VLMEvalKit's judged tables: MODEL_DATASET_..._result (choice sets) and MODEL_DATASET_auxmatch (yes or no).

Tables come as TSV, JSON or spreadsheet (PRED_FORMAT). In circular sets a hit means that all copies of a question were
right, and only the base questions are taken; the table of predictions beside, MODEL_DATASET, has every copy.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.integrations.reported import Answer, Reported
from harness.records.errors import EnvironmentProblem, HarnessError

FAILED = "Failed to obtain answer"
ENDINGS = ("_result", "_auxmatch")
KINDS = ("tsv", "json", "xlsx")
COPY = 1_000_000  # what the index of a copy is larger by
CELL_LIMIT = 32_767  # characters, where spreadsheets cut

Row = Mapping[str, Any]


def read(path: Path) -> list[Reported]:
    """Every judged table of a folder, or the one given. Raises HarnessError, naming what is wrong."""
    files = [path] if path.is_file() else [file for kind in KINDS for file in sorted(path.rglob(f"*.{kind}"))]
    judged = [file for file in files if file.stem.endswith(ENDINGS) and not file.is_symlink()]
    if not judged:
        raise HarnessError(f"no *_result or *_auxmatch table ({', '.join(KINDS)}) in {path}; is it VLMEvalKit's?")
    return [_read_file(file) for file in judged]


def _read_file(file: Path) -> Reported:
    status = _status(file)
    model = str(status.get("model_name") or _model(file))
    if not file.stem.startswith(f"{model}_"):
        raise HarnessError(f"{file} does not begin with its folder's model {model!r}; keep VLMEvalKit's folders")
    benchmark = _benchmark(file.stem.removeprefix(f"{model}_"))
    rows = [row for row in _rows(file) if str(row.get("g_index") or row.get("index")) == str(row.get("index"))]
    if not rows:
        raise HarnessError(f"{file} has no base questions (g_index = index); is it cut?")
    answers = tuple(_answer(row, file, number) for number, row in enumerate(rows, 1))
    beside = next((found for kind in KINDS if (found := file.with_name(f"{model}_{benchmark}.{kind}")).is_file()), None)
    return Reported(
        tool="vlmevalkit",
        model=model,
        benchmark=benchmark,
        metrics=_metrics(status, benchmark) | {"hit_ratio": sum(one.score for one in answers) / len(answers)},
        n=len(answers),
        files=(file, beside) if beside else (file,),
        answers=answers,
        settings=_settings(rows, beside, file),
        tool_version=str(status.get("commit") or ""),
    )


def _status(file: Path) -> Row:
    """What newer versions write beside the tables, {} where there is none."""
    place = file.with_name("status.json")
    told = _loaded(place) if place.is_file() else {}
    return told if isinstance(told, dict) else {}


def _metrics(status: Row, benchmark: str) -> dict[str, float]:
    told = (status.get("datasets") or {}).get(benchmark) or {}
    known = told.get("metrics") or {}
    return {name: float(value) for name, value in known.items() if isinstance(value, int | float)}


def _settings(rows: Sequence[Row], beside: Path | None, file: Path) -> dict[str, Any]:
    """How many copies a question has, and how many cells a spreadsheet may have cut; only where there are any.

    Raises HarnessError where questions were answered that the table does not judge.
    """
    cut = sum(len(str(row.get("prediction", ""))) >= CELL_LIMIT for row in rows) if file.suffix == ".xlsx" else 0
    known: dict[str, Any] = {"cut_cells": cut} if cut else {}
    if beside is None:
        return known
    indices = [str(row.get("index", "")) for row in _rows(beside)]
    copies = [int(index) % COPY if index.isdigit() else index for index in indices]
    if len(set(copies)) != len(rows):
        raise HarnessError(f"{file} judges {len(rows)} questions, {beside.name} has {len(set(copies))}; one is torn")
    return known | ({"copies": len(copies) / len(rows)} if len(copies) > len(rows) else {})


def _model(file: Path) -> str:
    """The model's name, which may hold underscores: that of the folder, or of the one above a run's T...-folder."""
    parent = file.resolve().parent
    return parent.parent.name if parent.name[:1] == "T" and parent.name[1:9].isdigit() else parent.name


def _benchmark(rest: str) -> str:
    """ "MMBench_DEV_EN_exact_matching_result" -> "MMBench_DEV_EN"; the judge stands before the ending."""
    for ending in ENDINGS:
        rest = rest.removesuffix(ending)
    return rest.removesuffix("_exact_matching")


def _rows(file: Path) -> list[Row]:
    if file.suffix == ".json":
        rows = _loaded(file)
    elif file.suffix == ".xlsx":
        rows = _sheet(file)
    else:
        rows = _table(file)
    if not isinstance(rows, list) or not rows:
        raise HarnessError(f"{file} has no rows; is it one of VLMEvalKit's tables?")
    return rows


def _loaded(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HarnessError(f"{file} cannot be read: {error}") from error


def _table(file: Path) -> list[Row]:
    csv.field_size_limit(2**31 - 1)
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            return list(csv.DictReader(opened, delimiter="\t"))
    except UnicodeDecodeError as error:
        raise HarnessError(f"{file} cannot be read: {error}") from error


def _sheet(file: Path) -> list[Row]:
    """The first sheet's rows; an empty cell is "". Raises EnvironmentProblem without openpyxl."""
    from zipfile import BadZipFile

    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise EnvironmentProblem(f"{file.name} is a spreadsheet: pip install openpyxl") from error
    try:
        opened = load_workbook(file, read_only=True)
    except (BadZipFile, KeyError, ValueError) as error:
        raise HarnessError(f"{file} cannot be read: {error}") from error
    lines = opened.worksheets[0].iter_rows(values_only=True)
    names = [str(name) for name in next(lines, ())]
    return [dict(zip(names, ("" if cell is None else cell for cell in line), strict=True)) for line in lines]


def _answer(row: Row, file: Path, number: int) -> Answer:
    hit = row.get("hit", row.get("score"))
    score = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0}.get(str(hit).lower())
    if score is None or "index" not in row or "prediction" not in row:
        raise HarnessError(f"{file}, row {number} lacks index, prediction, or a hit of 0 or 1; it has {', '.join(row)}")
    said = str(row["prediction"])
    error = FAILED if FAILED in said else None
    return Answer(str(row["index"]), str(row.get("question", "")), str(row.get("answer", "")), said, score, error)
