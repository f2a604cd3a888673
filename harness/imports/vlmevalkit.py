"""VLMEvalKit's judged tables: MODEL_DATASET_..._result.tsv (choice sets) and MODEL_DATASET_auxmatch.tsv (yes or no).

Tables come as TSV or JSON (PRED_FORMAT=tsv); spreadsheets cut cells at 32,767 characters and are not read. In circular
sets the table holds the base questions, a hit meaning that all copies were right.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.imports.reported import Answer, Reported

FAILED = "Failed to obtain answer"
ENDINGS = ("_result", "_auxmatch")


def read(path: Path) -> list[Reported]:
    """Every judged table of a folder, or the one given. Raises HarnessError, naming what is wrong."""
    files = [path] if path.is_file() else [file for kind in ("tsv", "json") for file in sorted(path.rglob(f"*.{kind}"))]
    judged = [file for file in files if file.stem.endswith(ENDINGS)]
    if not judged:
        raise HarnessError(f"no *_result or *_auxmatch .tsv or .json in {path}; run VLMEvalKit with PRED_FORMAT=tsv")
    return [_read_file(file) for file in judged]


def _read_file(file: Path) -> Reported:
    model = _model(file)
    if not file.stem.startswith(f"{model}_"):
        raise HarnessError(f"{file} does not begin with its folder's model {model!r}; keep VLMEvalKit's folders")
    rows = _rows(file)
    answers = tuple(_answer(row, file, number) for number, row in enumerate(rows, 1))
    hits = sum(one.score for one in answers) / len(answers)
    return Reported(
        tool="vlmevalkit",
        model=model,
        benchmark=_benchmark(file.stem.removeprefix(f"{model}_")),
        metrics={"hit_ratio": hits},
        n=len(answers),
        file=file,
        answers=answers,
    )


def _model(file: Path) -> str:
    """The model's name, which may hold underscores: that of the folder, or of the one above a run's T...-folder."""
    parent = file.resolve().parent
    return parent.parent.name if parent.name[:1] == "T" and parent.name[1:9].isdigit() else parent.name


def _benchmark(rest: str) -> str:
    """ "MMBench_DEV_EN_exact_matching_result" -> "MMBench_DEV_EN"; the judge stands before the ending."""
    for ending in ENDINGS:
        rest = rest.removesuffix(ending)
    return rest.removesuffix("_exact_matching")


def _rows(file: Path) -> list[Mapping[str, Any]]:
    try:
        if file.suffix == ".json":
            rows = json.loads(file.read_text())
        else:
            csv.field_size_limit(2**31 - 1)
            with file.open(encoding="utf-8", newline="") as opened:
                rows = list(csv.DictReader(opened, delimiter="\t"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HarnessError(f"{file} cannot be read: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise HarnessError(f"{file} has no rows; is it one of VLMEvalKit's judged tables?")
    return rows


def _answer(row: Mapping[str, Any], file: Path, number: int) -> Answer:
    hit = row.get("hit", row.get("score"))
    score = {"1": 1.0, "1.0": 1.0, "true": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0}.get(str(hit).lower())
    if score is None or "index" not in row or "prediction" not in row:
        raise HarnessError(f"{file}, row {number} lacks index, prediction, or a hit of 0 or 1; it has {', '.join(row)}")
    said = str(row["prediction"])
    error = FAILED if FAILED in said else None
    return Answer(str(row["index"]), str(row.get("question", "")), str(row.get("answer", "")), said, score, error)
