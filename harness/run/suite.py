"""A preset run from end to end: its cells one after another, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.benchmarks.suites import Suite
from harness.budget.spec import BudgetSpec
from harness.records.records import Record
from harness.request.opening import Sources, open_named
from harness.request.request import Request
from harness.run.comparison import Comparison, document
from harness.stats import Interval, accuracy_interval
from harness.store.log_reader import read_log
from methods.base import BudgetInfeasible

RIGHT = 0.5  # soft scores count as right from here
NOTE = (
    "on hard samples the full model scores 100 % and that downsampling 0 % by selection; compare methods with one "
    "another and with random on the same samples"
)
Records = Mapping[str, Record]  # sample id -> its record


@dataclass(frozen=True)
class Hard:
    """One judgement. factor: by which the sides were divided. n of all: how many samples are hard.

    accuracy, random: on those, with 95 % intervals; None where there is none, or no random run.
    """

    factor: int
    n: int
    all: int
    accuracy: Interval | None
    random: Interval | None


# Most questions of most benchmarks survive a picture of a quarter of its pixels; there every pruner looks good. Part of
# what is chosen here is luck (an answer right in full by a guess, wrong when shrunk by another), and falls back towards
# its mean in any third run: so methods are compared with one another and with random choice on the same questions.
def hard_ids(full: Records, small: Records) -> list[str]:
    """The samples that the full run gets right and the downsampled one wrong, in order. Error rows are neither."""
    return [
        name
        for name, record in full.items()
        if record.score >= RIGHT and small[name].score < RIGHT and small[name].error is None
    ]


def judge(factor: int, full: Records, small: Records, own: Records, random: Records | None) -> Hard:
    """A method on the hard samples of one factor. small: the run of `downsample` at 1 / factor² of the tokens."""
    ids = hard_ids(full, small)
    return Hard(factor, len(ids), len(full), _accuracy(own, ids), _accuracy(random, ids))


def _accuracy(records: Records | None, ids: list[str]) -> Interval | None:
    if records is None or not ids:
        return None
    chosen = [records[name] for name in ids]
    return accuracy_interval([record.score for record in chosen], [record.cluster for record in chosen])


DOWNSAMPLE = "downsample"
Run = Callable[[Request], Comparison]


@dataclass(frozen=True)
class SuiteCell:
    """One cell of a suite. comparison: None where the method cannot reach the budget, and infeasible says why."""

    request: Request
    comparison: Comparison | None
    infeasible: str = ""
    hard: tuple[Hard, ...] = ()


def requests_of(suite: Suite, asked: Request, chosen: Collection[str]) -> list[Request]:
    """The requests of a suite. chosen: the fields of `asked` that the user named, which replace the suite's."""
    budgets = [BudgetSpec.parse(words) for words in suite.budgets]
    return [
        replace(asked, model=model, benchmark=benchmark, budget=budget, limit=limit)
        for model, benchmark, budget, limit in product(
            (asked.model,) if "model" in chosen else suite.models,
            (asked.benchmark,) if "benchmark" in chosen else suite.benchmarks,
            (asked.budget,) if "budget" in chosen or asked.is_full else budgets,
            (asked.limit,) if "limit" in chosen else (suite.limit,),
        )
    ]


def run_suite(
    suite: Suite, requests: list[Request], run: Run, sources: Sources, log_path: Callable[[str], Path]
) -> list[SuiteCell]:
    """Run all requests; a budget that is infeasible is noted, and the others go on.

    Every benchmark is opened first, so that a missing one stops in seconds. Raises what opening and running raise.
    """
    for request in {one.benchmark: one for one in requests}.values():
        open_named(sources, request)
    return list(_cells(suite, requests, run, log_path))


def _cells(suite: Suite, requests: list[Request], run: Run, log_path: Callable[[str], Path]) -> Iterator[SuiteCell]:
    for request in requests:
        try:
            comparison = run(request)
        except BudgetInfeasible as error:
            yield SuiteCell(request, None, str(error))
            continue
        yield SuiteCell(request, comparison, hard=tuple(_hard(suite, request, comparison, run, log_path)))


def _hard(suite: Suite, request: Request, own: Comparison, run: Run, log_path: Callable[[str], Path]) -> Iterator[Hard]:
    def records(run_id: str) -> dict[str, Record]:
        contents = read_log(log_path(run_id))
        assert contents is not None  # it was run just now
        return dict(contents.records)

    for factor in suite.downsampled:
        budget = BudgetSpec("layer_average", 1 / factor**2)
        small = run(replace(request, method=DOWNSAMPLE, settings={}, budget=budget))
        random = records(own.random.spec.run_id) if own.random else None
        yield judge(
            factor, records(own.full.spec.run_id), records(small.run.spec.run_id), records(own.run.spec.run_id), random
        )


def summary(cells: list[SuiteCell]) -> list[dict[str, Any]]:
    """One row a model and budget: RA over the benchmarks' mean accuracies, and the mean of their own RAs."""
    keys = dict.fromkeys((cell.request.model, str(cell.request.budget)) for cell in cells)
    return [_row(*key, [one for one in cells if (one.request.model, str(one.request.budget)) == key]) for key in keys]


def _row(model: str, budget: str, cells: list[SuiteCell]) -> dict[str, Any]:
    figures = [cell.comparison.run.figures for cell in cells if cell.comparison is not None]
    pruned, full = ([getattr(one, name) for one in figures] for name in ("accuracy", "full_accuracy"))
    ratios = [one.ra for one in figures if one.ra is not None]
    return {
        "model": model,
        "budget": budget,
        "benchmarks": len(figures),
        "of": len(cells),
        "accuracy": fmean(pruned) if pruned else None,
        "full_accuracy": fmean(full) if full else None,
        "ra": fmean(pruned) / fmean(full) if full and any(full) else None,
        "ra_macro": fmean(ratios) if ratios else None,
    }


def suite_document(suite: Suite, cells: list[SuiteCell]) -> dict[str, Any]:
    """The JSON document of a suite."""
    return {
        "suite": suite.name,
        "seen_in": suite.seen_in,
        "left_out": list(suite.left_out),
        "summary": summary(cells),
        "runs": [document(cell.comparison) for cell in cells if cell.comparison is not None],
        "infeasible": [
            {
                "model": cell.request.model,
                "benchmark": cell.request.benchmark,
                "budget": str(cell.request.budget),
                "because": cell.infeasible,
            }
            for cell in cells
            if cell.comparison is None
        ],
        "hard": {"note": NOTE, "rows": list(hard_rows(cells))} if suite.downsampled else None,
    }


def hard_rows(cells: list[SuiteCell]) -> Iterator[dict[str, Any]]:
    """One row a cell and factor."""
    for cell in cells:
        for hard in cell.hard:
            yield {
                "model": cell.request.model,
                "benchmark": cell.request.benchmark,
                "budget": str(cell.request.budget),
                "downsampled_by": hard.factor,
                "n": hard.n,
                "of": hard.all,
                "accuracy": hard.accuracy and asdict(hard.accuracy),
                "random": hard.random and asdict(hard.random),
            }
