"""`harness report`: a set of runs as one HTML page, and as CSV and LaTeX tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options
from harness.cli.printing import print_json, tell

Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Ids or their beginnings, or METHOD[:PRESET][:BUDGET]. Default: all."),
]


def report(
    runs: Runs = None,
    out: Annotated[Path, typer.Option(help="The page. The tables lie beside it.")] = Path("report.html"),
    csv: Annotated[bool, typer.Option("--csv", help="Also write all runs as .csv.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Also write a table a group as .tex (booktabs).")] = False,
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Write a report of runs, with their controls: one HTML file that needs no network."""
    from datetime import UTC, datetime

    from harness.cli.stores import open_store
    from harness.records.errors import EnvironmentProblem
    from harness.report import csv_table, gather, latex_tables, page

    opened = open_store(store)
    groups = gather(opened, runs or ())
    texts = {out: page(groups, opened.path.name, datetime.now(UTC))}
    if csv:
        texts[out.with_suffix(".csv")] = csv_table(groups)
    if latex:
        texts[out.with_suffix(".tex")] = latex_tables(groups)
    try:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise EnvironmentProblem(f"cannot write the report: {problem}; give another --out") from problem
    if json:
        print_json({"files": [str(path) for path in texts], "runs": sum(len(group.lines) for group in groups)})
    for path in texts:
        tell(f"wrote {path}")
