"""Runs in groups that share model and samples, each beside its controls: every page, table and file shows these.

The board and `harness export` ask the same functions, so that rank, verdict and ties are the same wherever they stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.records.figures import FAILED_BUDGET, OK, SELF_REPORTED
from harness.records.records import FULL, RANDOM
from harness.stats import (
    Interval,
    drawn_means,
    front_probabilities,
    holm,
    mcnemar,
    paired_difference,
    rank_intervals,
)
from harness.store.lookup import Row, with_controls

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
RESAMPLES = 4000
LARGE = 1_000_000  # resamples x clusters that are drawn while somebody waits
_GROUP = ("model", "model_revision", "benchmark", "benchmark_revision", "sample_ids", "provenance")


class Runs(Protocol):
    """A source of runs; `harness.submissions.all_runs` gives a store's and submitted ones as one.

    rows: every run with its `provenance`; newest: of runs that differ in code alone the last.
    """

    rows: Sequence[Row]
    newest: Sequence[Row]

    def scores(self, ids: Sequence[str]) -> Mapping[str, Sequence[float]]:
        """Run id -> the scores of its samples, by sample id."""

    def samples(self, ids: Sequence[str], columns: Sequence[str], sample_id: str | None = None) -> pd.DataFrame:
        """Some columns of the samples of some runs, or of one sample, by run id and sample id."""

    def facts(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Machine id -> what is known of it."""


@dataclass(frozen=True)
class Line:
    """One finished run. run: its row of the store. accuracy_by_category: in [0, 1].

    over_random: accuracy minus random's at the same budget, paired; p: McNemar's, adjusted by Holm over the methods
    at that budget; None without such a random run. rank: by accuracy among the runs at that budget, with the lowest
    and highest rank of 95 % of the bootstrap's draws. front: probability that nothing of the group is at least as
    accurate for no more FLOPs. The last three are None for runs that are never ranked.
    """

    run: Row
    accuracy_by_category: Mapping[str, float]
    over_random: Interval | None = None
    p: float | None = None
    rank: tuple[int, int, int] | None = None
    front: float | None = None

    @property
    def name(self) -> str:
        """The method with its preset, and its seed where that is not 0."""
        preset = f":{self.run['preset']}" if self.run["preset"] else ""
        seed = f" (seed {self.run['seed']})" if self.run["seed"] else ""
        return f"{self.run['method']}{preset}{seed}"

    @property
    def ranked(self) -> bool:
        """True if the run kept to its budget, measured."""
        return self.run["status"] == OK

    @property
    def beats_random(self) -> str:
        """ "yes", "no, worse", "not distinguishable", "failed its budget", or "–" where there is nothing to tell."""
        if self.run["status"] == FAILED_BUDGET:
            return "failed its budget"
        if self.over_random is None or self.p is None:
            return "–"
        if self.p >= LEVEL:
            return "not distinguishable"
        return "yes" if self.over_random.value > 0 else "no, worse"


@dataclass(frozen=True)
class Group:
    """Runs of one model on the same samples. lines: finished runs, no pruning first, then by budget and accuracy.

    categories: questions of each. images: clusters. failures: runs without a result. facts: machine id -> what is
    known of it.
    """

    model: str
    benchmark: str
    lines: Sequence[Line]
    categories: Mapping[str, int]
    images: int
    failures: Sequence[Row]
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def full(self) -> Line | None:
        """The unpruned run."""
        return next((line for line in self.lines if line.run["method"] == FULL), None)

    @property
    def budgets(self) -> list[str]:
        """The budgets at which runs can be compared, those with most tokens first."""
        found: dict[str, float] = {}
        for line in self.lines:
            if line.ranked and line.run["method"] != FULL and line.run["budget_kind"] != "native":
                found[line.run["budget"]] = max(found.get(line.run["budget"], 0.0), line.run["realised_tokens"] or 0.0)
        return sorted(found, key=lambda budget: -found[budget])

    @property
    def middle_budget(self) -> str | None:
        """The budget to begin with: neither so many tokens that all methods are alike, nor so few that all fail."""
        return self.budgets[(len(self.budgets) - 1) // 2] if self.budgets else None

    def at(self, budget: str | None) -> list[Line]:
        """The ranked lines at a budget."""
        at = [line for line in self.lines if line.ranked and line.run["budget"] == budget]
        return [line for line in at if line.run["method"] != FULL]


@dataclass(frozen=True)
class Scores:
    """Scores of runs on the same samples. table: (samples, runs), a column a run id; clusters: (samples,) numbers of
    images."""

    table: pd.DataFrame
    clusters: np.ndarray
    categories: Mapping[str, int]
    by_category: Mapping[str, Mapping[str, float]]


def gather(runs: Runs, words: Sequence[str] = ()) -> list[Group]:
    """All groups, or those of the runs that the words name, with their controls; the largest group first.

    words: ids, their beginnings, or METHOD[:PRESET][:BUDGET]. Of runs that differ in code alone the newest counts.
    Raises UnknownRun when a word names none.
    """
    chosen = with_controls(runs.rows, words) if words else runs.newest
    found = []
    for members in grouped(chosen):
        ids = [run["run_id"] for run in members]
        found.append(judged(members, read_scores(runs, finished(members)), runs.facts(ids)))
    return found


def grouped(runs: Sequence[Row]) -> list[list[Row]]:
    """Runs that share model and samples; what was run here or repeated first, then the groups with most answers.

    What only its sender has run is never in one group with what was run here or repeated.
    """
    found: dict[tuple, list[Row]] = {}
    for run in runs:
        *about, provenance = (run[key] for key in _GROUP)
        found.setdefault((*about, provenance == SELF_REPORTED), []).append(run)
    return sorted(found.values(), key=_place_in_list)


def _place_in_list(runs: Sequence[Row]) -> tuple[bool, int, str]:
    return runs[0]["provenance"] == SELF_REPORTED, -sum(run["accuracy"] is not None for run in runs), runs[0]["model"]


def finished(runs: Sequence[Row]) -> tuple[str, ...]:
    """The ids of those that have answers."""
    return tuple(run["run_id"] for run in runs if run["accuracy"] is not None and run["n"])


def read_scores(runs: Runs, ids: Sequence[str]) -> Scores | None:
    """Scores of runs on the same samples; None without runs. A run that lacks samples is left out."""
    import pandas as pd

    columns = runs.scores(ids) if ids else {}
    if not columns:
        return None
    longest = max(columns, key=lambda run: len(columns[run]))
    about = runs.samples([longest], ("cluster", "category"))
    table = pd.DataFrame({run: columns[run] for run in ids if run in columns and len(columns[run]) == len(about)})
    means = table.groupby(about["category"].to_numpy()).mean()
    counts = about["category"].value_counts().sort_index()
    return Scores(
        table,
        pd.factorize(about["cluster"], sort=True)[0],  # sorted as harness.stats does, for the same draws
        {str(name): int(count) for name, count in counts.items()},
        {run: {str(name): float(value) for name, value in means[run].items()} for run in table},
    )


def judged(runs: Sequence[Row], scores: Scores | None, facts: Mapping[str, Mapping[str, Any]]) -> Group:
    """A group of runs, judged beside random choice and ranked. A finished run that `scores` lacks is left out."""
    lines: list[Line] = []
    if scores is not None:
        kept = sorted((run for run in runs if run["run_id"] in scores.table), key=_order)
        lines = _beside_random([Line(run, scores.by_category[run["run_id"]]) for run in kept], scores)
        lines = _ranked(lines, scores)
    return Group(
        model=runs[0]["model"],
        benchmark=runs[0]["benchmark"],
        lines=lines,
        categories=scores.categories if scores else {},
        images=len(np.unique(scores.clusters)) if scores else 0,
        failures=[run for run in runs if run["status"] != OK],
        facts=facts,
    )


def _order(run: Row) -> tuple:
    """No pruning first, then from the largest budget to the smallest, the most accurate first."""
    return run["method"] != FULL, run["budget_kind"] == "native", -round(run["realised_tokens"] or 0), -run["accuracy"]


def _beside_random(lines: list[Line], scores: Scores) -> list[Line]:
    found: dict[int, tuple[Interval, float]] = {}
    for at, line in enumerate(lines):
        random = _random_of(line, lines)
        if random is not None and line.ranked:
            own, other = scores.table[line.run["run_id"]], scores.table[random.run["run_id"]]
            found[at] = paired_difference(own, other, scores.clusters), mcnemar(own, other, scores.clusters)
    adjusted: dict[str, float] = {}
    for budget in {lines[at].run["budget"] for at in found}:
        adjusted |= holm({str(at): p for at, (_, p) in found.items() if lines[at].run["budget"] == budget})
    return [
        replace(line, over_random=found[at][0], p=adjusted[str(at)]) if at in found else line
        for at, line in enumerate(lines)
    ]


def _random_of(line: Line, lines: Sequence[Line]) -> Line | None:
    """Random choice at the run's budget, of its seed if there is one; None for controls that need none."""
    if line.run["method"] in (FULL, RANDOM) or line.run["budget_kind"] == "native":
        return None
    fitting = [
        one for one in lines if one.run["method"] == RANDOM and one.ranked and one.run["budget"] == line.run["budget"]
    ]
    return min(fitting, key=lambda one: one.run["seed"] != line.run["seed"], default=None)


def resamples_for(clusters: ArrayLike) -> int:
    """RESAMPLES draws, fewer with very many clusters, at least 400: a share to 5 points."""
    return max(400, min(RESAMPLES, LARGE // len(np.unique(np.asarray(clusters)))))


def means_over_draws(scores: ArrayLike, clusters: ArrayLike) -> NDArray[np.float64]:
    """(resamples, runs) mean scores over clusters drawn with replacement.

    scores: (runs, samples) in [0, 1]; clusters: (samples,) labels.
    """
    return drawn_means(scores, clusters, resamples=resamples_for(clusters))


def _ranked(lines: list[Line], scores: Scores) -> list[Line]:
    ranked = [at for at, line in enumerate(lines) if line.ranked and line.run["flops_ratio"] is not None]
    if not ranked:
        return lines
    runs = [lines[at].run for at in ranked]
    draws = means_over_draws(scores.table[[run["run_id"] for run in runs]].to_numpy().T, scores.clusters)
    front = front_probabilities(draws, [run["flops_ratio"] for run in runs])
    with_front = [replace(lines[at], front=float(share)) for at, share in zip(ranked, front, strict=True)]
    placed = dict(zip(ranked, with_ranks(with_front, draws, "accuracy"), strict=True))
    return [placed.get(at, line) for at, line in enumerate(lines)]


def with_ranks(lines: Sequence[Line], draws: NDArray[np.float64], value: str) -> list[Line]:
    """The lines with their rank by a column of the runs among those at one budget. draws: (resamples, lines)."""
    made = list(lines)
    for budget in dict.fromkeys(line.run["budget"] for line in lines):
        same = [at for at, line in enumerate(lines) if line.run["budget"] == budget]
        column = [at for at in same if lines[at].run["method"] != FULL and lines[at].run["budget_kind"] != "native"]
        bounds = rank_intervals(draws[:, column]) if column else np.empty((0, 2))
        for at, (low, high) in zip(column, bounds.tolist(), strict=True):
            rank = 1 + sum(lines[other].run[value] > lines[at].run[value] for other in column)
            made[at] = replace(made[at], rank=(rank, low, high))
    return made
