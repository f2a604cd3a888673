"""A suite as tables for people."""

from __future__ import annotations

from harness.benchmarks.suites import Suite
from harness.cli.printing import print_json, print_rows, tell
from harness.records.figures import FAILED_BUDGET
from harness.run.suite import NOTE, Cell, hard_rows, suite_document, summary


def print_suite(suite: Suite, cells: list[Cell], json: bool) -> bool:
    """A row a cell, a row a model and budget, and the hard samples; False when a run missed its budget."""
    if json:
        print_json(suite_document(suite, cells))
    else:
        print_rows([_row(cell) for cell in cells], ("benchmark", "budget", "metric", "unpruned", "pruned", "ra", "lr"))
        print_rows(summary(cells), ("model", "budget", "benchmarks", "of", "ra", "ra_macro"))
        if suite.downsampled:
            rows = [{**row, **{key: _share(row[key]) for key in ("accuracy", "random")}} for row in hard_rows(cells)]
            print_rows(rows, ("benchmark", "budget", "downsampled_by", "n", "of", "accuracy", "random"))
            tell(NOTE)
    for words in suite.left_out:
        tell(f"left out: {words}")
    missed = [cell for cell in cells if cell.comparison and cell.comparison.run.figures.status == FAILED_BUDGET]
    for cell in missed:
        assert cell.comparison is not None
        tell(f"{cell.request.benchmark}: {cell.comparison.run.figures.message}")
    return not missed


def _row(cell: Cell) -> dict[str, object]:
    """The benchmark's own headline metric in both arms; where the budget is infeasible, why."""
    row = {"benchmark": cell.request.benchmark, "budget": str(cell.request.budget)}
    if cell.comparison is None:
        return {
            **row,
            "metric": f"infeasible: {cell.infeasible}",
            "unpruned": None,
            "pruned": None,
            "ra": None,
            "lr": None,
        }
    run, full = cell.comparison.run.figures, cell.comparison.full.figures
    name = next(iter(run.metrics), "accuracy")
    return {
        **row,
        "metric": name,
        "unpruned": full.metrics.get(name, full.accuracy),
        "pruned": run.metrics.get(name, run.accuracy),
        "ra": run.ra,
        "lr": run.lr,
    }


def _share(interval: dict[str, float] | None) -> str:
    """An interval in %: "41.7 [20.0, 63.3]"."""
    if interval is None:
        return "–"
    return f"{interval['value'] * 100:.1f} [{interval['low'] * 100:.1f}, {interval['high'] * 100:.1f}]"
