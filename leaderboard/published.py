"""Numbers that papers print, with their sources: results/published/*.csv. Never mixed with runs."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from harness.records.errors import HarnessError
from harness.records.provenance import ROOT

FOLDERS = (ROOT / "results" / "published", Path(__file__).resolve().parent / "published")  # checkout, wheel


@dataclass(frozen=True)
class Printed:
    """One printed number. value: in `unit`; budget, hardware: in the source's words, "not stated" where it is silent.

    second_hand: read in somebody else's text, not in the authors'. caveat: what to know before quoting it.
    """

    method: str
    model: str
    benchmark: str
    metric: str
    value: float
    unit: str
    budget: str
    hardware: str
    source: str
    second_hand: bool
    caveat: str
    file: str


def printed(folder: Path | None = None) -> list[Printed]:
    """All printed numbers, file by file. Raises HarnessError naming file and line where one does not fit."""
    found = folder or next((one for one in FOLDERS if one.is_dir()), None)
    return [number for file in sorted(found.glob("*.csv")) for number in _read(file)] if found else []


def _read(file: Path) -> Iterator[Printed]:
    names = [one.name for one in fields(Printed) if one.name != "file"]
    with file.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        if rows.fieldnames != names:
            raise HarnessError(f"{file}: expected the columns {', '.join(names)}, got {rows.fieldnames}")
        for row in rows:
            if row["second_hand"] not in ("yes", "no") or not all(row[name] for name in names if name != "caveat"):
                raise HarnessError(f"{file}, line {rows.line_num}: every cell but the caveat is needed")
            yield Printed(
                **{**row, "value": float(row["value"]), "second_hand": row["second_hand"] == "yes"}, file=file.stem
            )
