"""`harness export`: runs as a page, as tables, or as the board's site."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options
from harness.cli.printing import print_json, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report import Group


class Format(StrEnum):
    """Output formats."""

    html = "html"
    latex = "latex"
    md = "md"
    csv = "csv"
    site = "site"


DEFAULT = {
    Format.html: "report.html",
    Format.latex: "report.tex",
    Format.md: "report.md",
    Format.csv: "report.csv",
    Format.site: "site",
}
Chosen = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Ids or their beginnings, or METHOD[:PRESET][:BUDGET]. Default: all."),
]


def export(
    runs: Chosen = None,
    format: Annotated[
        Format,
        typer.Option(help="A page, a LaTeX or Markdown table a group, all runs as CSV, or the board as a static site."),
    ] = Format.html,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Default: report.html, .tex, .md, .csv, site.")
    ] = None,
    store: options.Store = None,
    results: options.Results = None,
    json: options.Json = False,
) -> None:
    """Write runs beside their controls for others to read. Nothing that is written needs a network.

    A site needs the board's extra; the other formats need none.
    """
    path = out or Path(DEFAULT[format])
    if format is Format.site:
        if runs:
            raise typer.BadParameter("a site shows all runs; leave out the names", param_hint="RUN")
        _write_site(store, results, path)
    else:
        _write(format, runs or (), store, results, path, json)
    tell(f"wrote {path}")


def _write(
    format: Format, runs: Sequence[str], store: Path | None, results: Path | None, path: Path, json: bool
) -> None:
    from harness.cli.stores import open_store
    from harness.records.errors import EnvironmentProblem
    from harness.report import gather
    from harness.submissions.all_runs import all_runs

    opened, submitted = open_store(store), options.submitted(store, results)
    groups = gather(all_runs(opened, submitted, tell), runs)
    source = opened.path.name + (f" and {submitted.name}" if submitted else "")
    try:
        path.write_text(_text(format, groups, source), encoding="utf-8")
    except OSError as problem:
        raise EnvironmentProblem(f"cannot write {path}: {problem}; give another --out") from problem
    if json:
        print_json({"files": [str(path)], "runs": sum(len(group.lines) for group in groups)})


def _text(format: Format, groups: Sequence[Group], source: str) -> str:
    from datetime import UTC, datetime

    from harness.report import csv_table, latex_tables, markdown_tables, page

    if format is Format.html:
        return page(groups, source, datetime.now(UTC))
    return {Format.latex: latex_tables, Format.md: markdown_tables, Format.csv: csv_table}[format](groups)


def _write_site(store: Path | None, results: Path | None, folder: Path) -> None:
    """Start the board's export in a process of its own: nothing of the harness imports the board."""
    import os
    import subprocess

    from harness.cli.board import check_extra, places
    from harness.records.errors import HarnessError

    check_extra("a site")
    store_path, *submitted = places(store, results)
    command = [sys.executable, "-m", "leaderboard.export", store_path, str(folder), *submitted]
    calm = {**os.environ, "STREAMLIT_LOGGER_LEVEL": "error"}  # it would tell that no server runs
    if subprocess.run(command, check=False, env=calm).returncode:
        raise HarnessError(f"the site in {folder} is not whole")
