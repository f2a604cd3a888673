"""A comparison as a table for people: unpruned, random and the method side by side."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.benchmarks.suites import Suite
from harness.cli.printing import print_json, print_rows, tell
from harness.records.figures import FAILED_BUDGET, Figures
from harness.records.records import BLIND, FULL
from harness.run.comparison import Comparison, Summary
from harness.run.suite import NOTE, SuiteCell, hard_rows, suite_document, summary


def print_comparison(comparison: Comparison) -> None:
    """The table on stdout."""
    from rich.console import Console
    from rich.table import Table

    columns = columns_of(comparison)
    spec = comparison.run.spec
    table = Table(
        title=f"{spec.model} · {spec.benchmark} · seed {spec.seed}", title_justify="left", box=None, pad_edge=False
    )
    table.padding, table.collapse_padding = (0, 1, 0, 0), True
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for label, cells in rows_of(columns, comparison):
        table.add_row(label, *cells)
    console = Console()
    console.width = max(console.width, 80)
    console.print(table, highlight=False)


def columns_of(comparison: Comparison) -> dict[str, Summary]:
    """Column title -> run, the controls first; a control that is the run itself appears once."""
    columns = {"unpruned": comparison.full}
    if comparison.random is not None:
        columns[f"random {comparison.random.budget}"] = comparison.random
    if comparison.run.spec.run_id != comparison.full.spec.run_id:
        spec = comparison.run.spec
        name = f"{spec.method}:{spec.preset}" if spec.preset else spec.method
        title = "no image" if spec.benchmark.endswith(BLIND) else f"{name} {comparison.run.budget}"
        columns[title] = comparison.run
    return columns


def rows_of(columns: Mapping[str, Summary], comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Label -> one cell a column. Shares are in %, intervals in brackets."""
    runs = list(columns.values())
    figures = [run.figures for run in runs]
    rows = [("accuracy % [95 %]", [_share(f.accuracy, f.accuracy_low, f.accuracy_high) for f in figures])]
    for category in comparison.run.accuracy_by_category:
        rows.append((f"  {category}", [_share(run.accuracy_by_category[category]) for run in runs]))
    metrics = comparison.run.figures.metrics
    if len(metrics) > 1:
        rows += [(name, [_metric(name, f.metrics.get(name)) for f in figures]) for name in metrics]
    rows += [("RA % [95 %]", [_share(f.ra, f.ra_low, f.ra_high) for f in figures])]
    over = comparison.over_random
    if over is not None:
        rows.append(("points over random", ["–", "–", _share(over.value, over.low, over.high)]))
    rows += [
        ("visual tokens, full", [_tokens(f.full_tokens) for f in figures]),
        ("  asked", [_tokens(f.asked_tokens) for f in figures]),
        ("  realised", [_tokens(f.realised_tokens) for f in figures]),
        ("  entering layers", [by_layer(run.entering) for run in runs]),
        ("target kept %", [_share(f.recall_of_target) for f in figures]),
        ("prefill FLOPs ratio", [_ratio(f.flops_ratio) for f in figures]),
        ("  of the LLM", [_ratio(f.llm_flops_ratio) for f in figures]),
    ]
    return rows + _latency_rows(runs, comparison.run.figures)


def _latency_rows(runs: Sequence[Summary], timed: Figures) -> list[tuple[str, list[str]]]:
    """Prefill milliseconds by stage: the unpruned column shows the arm that was timed beside the method."""
    if not timed.base_ms:
        return []
    arms = [timed.base_ms, *[run.figures.pruned_ms for run in runs[1:]]]
    stages = [stage for stage in timed.base_ms | timed.pruned_ms if stage != "total"]
    rows = [("prefill, median ms", [_ms(arm, "total") for arm in arms])]
    rows += [(f"  {stage}", [_ms(arm, stage) for arm in arms]) for stage in stages]
    saved = ["–", *[_share(run.figures.lr, run.figures.lr_low, run.figures.lr_high) for run in runs[1:]]]
    rows.append(("LR %, time saved", saved[: len(runs)]))
    rows.append(("  at device's limit", ["–", *[_share(run.figures.roofline_lr) for run in runs[1:]]][: len(runs)]))
    return [*rows, ("  indicative", [_mark(run.figures.indicative) for run in runs])]


def by_layer(entering: Sequence[float]) -> str:
    """Tokens of each LLM layer, runs of equal ones joined: "64 x3, 20 x13"."""
    groups: list[tuple[str, int]] = []
    for value in entering:
        spelled = f"{value:.1f}".removesuffix(".0")
        if groups and groups[-1][0] == spelled:
            groups[-1] = (spelled, groups[-1][1] + 1)
        else:
            groups.append((spelled, 1))
    return ", ".join(f"{value} x{count}" for value, count in groups) or "–"


def tell_next(comparison: Comparison, store: Path, typed: Sequence[str]) -> None:
    """Print warnings and the next commands on stderr. typed: the command line behind "harness"."""
    run = comparison.run
    if run.figures.errors:
        tell(f"{run.figures.errors} of {run.figures.n} samples failed and count as wrong: harness show {_id(run)}")
    if comparison.over_random is not None:
        over = comparison.over_random
        points = f"{over.value * 100:+.1f} points, 95 % {over.low * 100:+.1f} to {over.high * 100:+.1f}"
        tell(f"beats random: {comparison.beats_random} ({points})")
    if run.figures.lr is not None and run.figures.lr < 0:
        tell("LR is negative: here the method is slower than no pruning")
    if run.figures.indicative:
        tell(f"latency is indicative: {run.figures.indicative_because or 'told by an older harness'}")
    tell(f"run {run.spec.run_id} is in {store}")
    if run.figures.status != FAILED_BUDGET and run.spec.method != FULL:
        tell(f"next: {shlex.join(['harness', *at_budget('11%' if run.spec.budget_value == 0.25 else '25%', typed)])}")
    tell(f"next: harness show {_id(run)}    harness list runs")


def at_budget(budget: str, typed: Sequence[str]) -> list[str]:
    """A command line of `harness run` with another budget; what was forced is not forced again."""
    words, kept = iter(typed), []
    for word in words:
        if word == "--budget":
            next(words, None)
        elif word != "--force" and not word.startswith("--budget="):
            kept.append(word)
    return [*kept, "--budget", budget]


def _id(run: Summary) -> str:
    return run.spec.run_id


def _share(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A ratio in %, with its bounds unless they are one: 0.5 -> "50.0", or "50.0 [40.1, 59.9]"."""
    if value is None:
        return "–"
    bounds = f" [{low * 100:.1f}, {high * 100:.1f}]" if low is not None and high is not None and low < high else ""
    return f"{value * 100:.1f}{bounds}"


def _metric(name: str, value: float | None) -> str:
    """Points as they are, a ratio in %."""
    return f"{value:.1f}" if value is not None and ("points" in name or value > 1) else _share(value)


def _mark(indicative: bool | None) -> str:
    return "–" if indicative is None else "yes" if indicative else "no"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _tokens(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}".removesuffix(".0")


def _ms(arm: Mapping[str, float], stage: str) -> str:
    return f"{arm[stage]:.2f}" if stage in arm else "–"


def print_suite(suite: Suite, cells: list[SuiteCell], json: bool) -> bool:
    """A row a cell, a row a model and budget, and the hard samples; False when a run missed its budget."""
    if json:
        print_json(suite_document(suite, cells))
    else:
        print_rows([_row(cell) for cell in cells], ("benchmark", "budget", "metric", "unpruned", "pruned", "ra", "lr"))
        print_rows(summary(cells), ("model", "budget", "benchmarks", "of", "ra", "ra_macro"))
        if suite.downsampled:
            rows = [{**row, **{key: _interval(row[key]) for key in ("accuracy", "random")}} for row in hard_rows(cells)]
            print_rows(rows, ("benchmark", "budget", "downsampled_by", "n", "of", "accuracy", "random"))
            tell(NOTE)
    for words in suite.left_out:
        tell(f"left out: {words}")
    missed = [cell for cell in cells if cell.comparison and cell.comparison.run.figures.status == FAILED_BUDGET]
    for cell in missed:
        assert cell.comparison is not None
        tell(f"{cell.request.benchmark}: {cell.comparison.run.figures.message}")
    return not missed


def _row(cell: SuiteCell) -> dict[str, object]:
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


def _interval(interval: dict[str, float] | None) -> str:
    """An interval in %: "41.7 [20.0, 63.3]"."""
    if interval is None:
        return "–"
    return f"{interval['value'] * 100:.1f} [{interval['low'] * 100:.1f}, {interval['high'] * 100:.1f}]"
