"""Columns of runs, declared once for HTML, CSV, LaTeX and Markdown: a header with its unit, a value with its bounds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.report.blocks import Table, Value
from harness.report.gather import Group, Line

Bounded = tuple[float | None, float | None, float | None]  # value, low, high
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "–": "--",
        "\n": " ",
        "\r": " ",
    }
)
_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|!~]")


@dataclass(frozen=True)
class Column:
    """One column. cell: a run's text, or (value, low, high) in the header's unit; style: how a number is written."""

    header: str
    cell: Callable[[Line], str | Bounded]
    style: str = ".1f"
    bounds: bool = False

    @property
    def title(self) -> str:
        return f"{self.header} [95 %]" if self.bounds else self.header

    def text(self, line: Line) -> str:
        """The cell as people read it: "72.2 [68.3, 76.0]", "–" where there is nothing."""
        cell = self.cell(line)
        if isinstance(cell, str):
            return cell or "–"
        value, low, high = cell
        if value is None:
            return "–"
        if low is None or high is None or low == high:
            return format(value, self.style)
        return f"{value:{self.style}} [{low:{self.style}}, {high:{self.style}}]"

    def value(self, line: Line) -> Value:
        """The cell of a table that can be sorted: a number as it is shown, None where there is nothing."""
        cell = self.cell(line)
        if isinstance(cell, str) or self.bounds:
            return None if (text := self.text(line)) == "–" else text
        return None if cell[0] is None else round(cell[0], int(self.style[-2]))


def table(columns: Sequence[Column], lines: Sequence[Line], name: str) -> Table:
    """The columns that say something of any of the runs."""
    rows = [[column.value(line) for column in columns] for line in lines]
    told = [at for at in range(len(columns)) if any(row[at] is not None for row in rows)]
    return Table([columns[at].title for at in told], [[row[at] for at in told] for row in rows], name)


def _number(name: str, scale: float = 1.0) -> Callable[[Line], Bounded]:
    def cell(line: Line) -> Bounded:
        return tuple(
            None if line.run.get(key) is None else line.run[key] * scale
            for key in (name, f"{name}_low", f"{name}_high")
        )

    return cell


def _over_random(line: Line) -> Bounded:
    over = line.over_random
    return (None, None, None) if over is None else (over.value * 100, over.low * 100, over.high * 100)


def _rank(line: Line) -> Bounded:
    return line.rank or (None, None, None)


def _front(line: Line) -> Bounded:
    return (None if line.front is None else line.front * 100, None, None)


def _stage(arm: str, stage: str) -> Callable[[Line], Bounded]:
    return lambda line: ((line.run[arm] or {}).get(stage), None, None)


def _notes(line: Line) -> str:
    run = line.run
    words = []
    if run["stale"]:
        words.append("stale")
    if run["errors"]:
        words.append(f"{run['errors']} of {run['n']} samples failed")
    if run["indicative"]:
        words.append("indicative" + (f" ({run['indicative_because']})" if run.get("indicative_because") else ""))
    return "; ".join(words)


METHOD = Column("method", lambda line: line.name)
BUDGET = Column("budget", lambda line: line.run["budget"])
OVER_RANDOM = Column("over random, points", _over_random, "+.1f", bounds=True)
FLOPS = Column("prefill FLOPs / unpruned", _number("flops_ratio"), ".3f")
LR = Column("LR, % of time saved", _number("lr", 100), bounds=True)
_BRIEF = (
    METHOD,
    BUDGET,
    Column("visual tokens a layer", _number("realised_tokens")),
    Column("accuracy, %", _number("accuracy", 100), bounds=True),
    Column("RA, %", _number("ra", 100), bounds=True),
    OVER_RANDOM,
)
BEATS_RANDOM = Column("beats random (Holm)", lambda line: line.beats_random)
KEPT = Column("target kept, %", _number("recall_of_target", 100))
_COST = (
    Column("LLM FLOPs / unpruned", _number("llm_flops_ratio"), ".3f"),
    Column("on the front, %", _front, ".0f"),
    Column("prefill unpruned, ms", _stage("base_ms", "total"), ".2f"),
    Column("prefill pruned, ms", _stage("pruned_ms", "total"), ".2f"),
    Column("LR at the roofline, %", _number("roofline_lr", 100)),
    Column("selection tax, %", _number("select_tax", 100)),
    KEPT,
    Column("notes", _notes),
)
EACH_RUN = (*_BRIEF, BEATS_RANDOM, FLOPS, LR, KEPT, Column("run", lambda line: line.run["run_id"]))
DETAILS = (METHOD, BUDGET, OVER_RANDOM, *_COST)  # what a ranking does not show
_IN_FILES = (
    *_BRIEF,
    BEATS_RANDOM,
    Column("rank at its budget", _rank, ".0f", bounds=True),
    FLOPS,
    *_COST[:4],
    LR,
    *_COST[4:],
)


def by_category(group: Group) -> tuple[Column, ...]:
    """A column for each category of questions, with their number."""

    def column(name: str, count: int) -> Column:
        return Column(
            f"{name}, % (n = {count})", lambda line: (line.accuracy_by_category.get(name, 0.0) * 100, None, None)
        )

    return METHOD, BUDGET, *(column(name, count) for name, count in group.categories.items())


def csv_table(groups: Iterable[Group]) -> str:
    """All runs, one row each: bounds have columns of their own, empty = not measured."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    headers = ["run_id", "model", "benchmark", "seed", "n"]
    writer.writerow(headers + [name for column in _IN_FILES for name in _csv_headers(column)])
    for group in groups:
        for line in group.lines:
            row = [_harmless(str(line.run[name])) for name in headers]
            writer.writerow(row + [value for column in _IN_FILES for value in _csv_cells(column, line)])
    return out.getvalue()


def _csv_headers(column: Column) -> list[str]:
    return [column.header, *([f"{column.header}, low", f"{column.header}, high"] if column.bounds else [])]


def _csv_cells(column: Column, line: Line) -> list[str]:
    cell = column.cell(line)
    if isinstance(cell, str):
        return ["" if cell == "–" else _harmless(cell)]
    return ["" if value is None else repr(round(value, 6)) for value in cell[: 3 if column.bounds else 1]]


def _harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def latex_tables(groups: Iterable[Group]) -> str:
    """One table a group, for the package booktabs."""
    columns = (*_BRIEF, FLOPS, LR)
    parts = []
    for group in groups:
        if group.lines:
            rows = [[cell.translate(_LATEX) for cell in row] for row in _texts(columns, group)]
            head, *body = (" & ".join(row) + r" \\" for row in rows)
            begin = r"\begin{tabular}{ll" + "r" * (len(columns) - 2) + "}"
            lines = [f"% {_title(group)}", begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
            parts.append("\n".join([*lines, r"\end{tabular}", ""]))
    return "\n".join(parts) or "% no finished runs\n"


def markdown_tables(groups: Iterable[Group]) -> str:
    """One table a group, under a heading; text that could be markup is escaped."""
    columns = (*_BRIEF, FLOPS, LR)
    parts = []
    for group in groups:
        if group.lines:
            head, *body = (f"| {' | '.join(map(_plain, row))} |" for row in _texts(columns, group))
            rule = "|---|---|" + "---:|" * (len(columns) - 2)
            parts.append("\n".join([f"## {_plain(_title(group))}", "", head, rule, *body, ""]))
    return "\n".join(parts) or "No finished runs.\n"


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def _texts(columns: Sequence[Column], group: Group) -> list[list[str]]:
    """The header, then a row a run."""
    return [[column.title for column in columns], *([column.text(line) for column in columns] for line in group.lines)]


def _title(group: Group) -> str:
    """A group in one line."""
    words = f"{group.model} on {group.benchmark}: {group.lines[0].run['n']} questions on {group.images} images"
    return " ".join(words.split())
