"""lmms-eval's result files: STAMP_results.json, and beside it STAMP_samples_TASK.jsonl.

A task with several filters has its rows in blocks, one a filter, without a column that names it: the blocks are named
in the order in which the filters first occur in the results. Groups have no rows of their own: their tasks are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.integrations.lmms_metrics import by_filter, means_of, scores_of
from harness.integrations.reported import Answer, Reported
from harness.records.errors import HarnessError


def read(path: Path) -> list[Reported]:
    """Every task and filter of a results file, or of all in a folder. Raises HarnessError, naming what is wrong."""
    files = [path] if path.is_file() else sorted(path.rglob("*_results.json"))
    if not files:
        raise HarnessError(f"no *_results.json in {path}; give the folder that lmms-eval wrote with --log_samples")
    return [found for file in files for found in _read_file(file)]


def _read_file(file: Path) -> list[Reported]:
    told = _json(file)
    if not isinstance(told, dict) or not isinstance(told.get("results"), dict):
        raise HarnessError(f"{file} has no results; is it lmms-eval's?")
    groups = {name for name, tasks in (told.get("group_subtasks") or {}).items() if tasks}
    tasks = [task for task in told["results"] if task not in groups]
    return [found for task in tasks for found in _read_task(told, task, file)]


def _read_task(told: Mapping[str, Any], task: str, file: Path) -> Iterator[Reported]:
    """One run for each filter of a task."""
    metrics, config = by_filter(told["results"][task]), told.get("config") or {}
    rows = file.with_name(f"{file.name.removesuffix('_results.json')}_samples_{task}.jsonl")
    known = _count(told, task)
    blocks = _blocks(rows, list(metrics), known) if rows.is_file() else {}
    means = means_of((told.get("configs") or {}).get(task) or {})
    for name, values in metrics.items():
        yield Reported(
            tool="lmms-eval",
            model=str(told.get("model_name") or config.get("model") or "unknown"),
            benchmark=task if len(metrics) == 1 else f"{task}:{name}",
            metrics=values,
            n=len(blocks.get(name, ())) or known,
            files=(file, rows) if blocks else (file,),
            answers=_answers(blocks.get(name, ()), values, means),
            settings={"model_args": str(config.get("model_args", ""))},
            tool_version=str(told.get("git_hash") or ""),
            limit=None if config.get("limit") is None else known,
        )


def _blocks(file: Path, filters: Sequence[str], known: int) -> dict[str, list[dict[str, Any]]]:
    """The rows of each filter. known: how many documents the results speak of, 0 where they do not."""
    rows = [_json_line(line, file, number) for number, line in enumerate(file.read_text().splitlines(), 1)]
    size, rest = divmod(len(rows), max(len(filters), 1))
    blocks = {name: rows[place * size : (place + 1) * size] for place, name in enumerate(filters)}
    ids = [[row["doc_id"] for row in block] for block in blocks.values()]
    if rest or any(one != ids[0] for one in ids):
        raise HarnessError(f"{file} has {len(rows)} rows for {len(filters)} filters, not as many for each; it is torn")
    if known and size != known:
        raise HarnessError(
            f"{file} has rows on {size} documents, the results speak of {known}; it is torn, or two runs wrote into it"
        )
    return blocks


def _answers(
    rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, float], means: Iterable[str]
) -> tuple[Answer, ...]:
    """The rows with their scores; () where no metric is the mean of any."""
    scores = scores_of(rows, metrics, means)
    return () if scores is None else tuple(_answer(row, score) for row, score in zip(rows, scores, strict=True))


def _answer(row: Mapping[str, Any], score: float) -> Answer:
    said = row.get("filtered_resps") or row.get("resps") or ""
    while isinstance(said, list):
        said = said[0] if said else ""
    return Answer(str(row["doc_id"]), str(row.get("input", "")), str(row.get("target", "")), str(said), score)


def _count(told: Mapping[str, Any], task: str) -> int:
    count = (told.get("n-samples") or {}).get(task, 0)
    return int(count.get("effective", 0)) if isinstance(count, dict) else int(count or 0)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HarnessError(f"{file} is no JSON: {error}") from error


def _json_line(line: str, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise HarnessError(f"{file}, line {number} is no JSON: {error}") from error
    if not isinstance(row, dict) or "doc_id" not in row:
        raise HarnessError(f"{file}, line {number} has no doc_id; is it lmms-eval's?")
    return row
