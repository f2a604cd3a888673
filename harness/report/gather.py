"""From a store to what a report shows: runs in groups that share model and samples, each beside its controls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.records.figures import FAILED_BUDGET, OK
from harness.report.compare import samples_of
from harness.stats import (
    Interval,
    drawn_means,
    front_probabilities,
    holm,
    mcnemar,
    paired_difference,
    rank_intervals,
)
from harness.store.lookup import Row, newest, rows_of, with_controls

if TYPE_CHECKING:
    import pandas as pd

    from harness.store.database import Store

FULL, RANDOM = "full", "random"
LEVEL = 0.05
RESAMPLES = 4000
_GROUP = ("model", "model_revision", "benchmark", "benchmark_revision", "sample_ids")


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
        """Whether the run kept to its budget, measured."""
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


def gather(store: Store, words: Sequence[str] = ()) -> list[Group]:
    """The groups of a store's runs: all of them, or those that the words name, with their controls.

    words: ids, their beginnings, or METHOD[:PRESET][:BUDGET]. Of runs that differ in code alone the newest counts.
    Raises UnknownRun when a word names none.
    """
    runs = rows_of(store)
    chosen = with_controls(runs, words) if words else newest(runs)
    groups: dict[tuple, list[Row]] = {}
    for run in chosen:
        groups.setdefault(tuple(run[key] for key in _GROUP), []).append(run)
    return [_group(store, members) for members in groups.values()]


def _group(store: Store, runs: Sequence[Row]) -> Group:
    finished = sorted((run for run in runs if run["accuracy"] is not None and run["n"]), key=_order)
    samples = samples_of(store, finished) if finished else None
    first = runs[0]
    return Group(
        model=first["model"],
        benchmark=first["benchmark"],
        lines=_lines(finished, samples) if samples is not None else [],
        categories=_categories(samples, finished) if samples is not None else {},
        images=samples["cluster"].nunique() if samples is not None else 0,
        failures=[run for run in runs if run["status"] != OK],
        facts=_facts(store, runs),
    )


def _order(run: Row) -> tuple:
    """No pruning first, then from the largest budget to the smallest, the most accurate first."""
    return run["method"] != FULL, run["budget_kind"] == "native", -round(run["realised_tokens"] or 0), -run["accuracy"]


def _lines(runs: Sequence[Row], samples: pd.DataFrame) -> list[Line]:
    scores = samples.pivot(index="sample_id", columns="run_id", values="score")
    clusters = samples.drop_duplicates("sample_id").set_index("sample_id").loc[scores.index, "cluster"].to_numpy()
    by_category = samples.groupby(["run_id", "category"])["score"].mean()
    return assessed(runs, scores, clusters, {run["run_id"]: by_category[run["run_id"]].to_dict() for run in runs})


def assessed(
    runs: Sequence[Row],
    scores: pd.DataFrame,
    clusters: np.ndarray,
    by_category: Mapping[str, Mapping[str, float]],
    resamples: int = RESAMPLES,
) -> list[Line]:
    """Finished runs of one group, judged beside random choice and ranked; in the order in which they are shown.

    scores: (samples, runs), a column a run id; clusters: (samples,) labels. Runs without a column are left out.
    """
    kept = sorted((run for run in runs if run["run_id"] in scores), key=_order)
    lines = [Line(run, by_category[run["run_id"]]) for run in kept]
    return _ranked(_beside_random(lines, scores, clusters), scores, clusters, resamples)


def _beside_random(lines: list[Line], scores: pd.DataFrame, clusters: np.ndarray) -> list[Line]:
    found: dict[int, tuple[Interval, float]] = {}
    for at, line in enumerate(lines):
        random = _random_of(line, lines)
        if random is not None and line.ranked:
            own, other = scores[line.run["run_id"]], scores[random.run["run_id"]]
            found[at] = paired_difference(own, other, clusters), mcnemar(own, other, clusters)
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


def _ranked(lines: list[Line], scores: pd.DataFrame, clusters: np.ndarray, resamples: int) -> list[Line]:
    ranked = [at for at, line in enumerate(lines) if line.ranked and line.run["flops_ratio"] is not None]
    if not ranked:
        return lines
    runs = [lines[at].run for at in ranked]
    draws = drawn_means(scores[[run["run_id"] for run in runs]].to_numpy().T, clusters, resamples=resamples)
    front = front_probabilities(draws, [run["flops_ratio"] for run in runs])
    made = list(lines)
    for at, share in zip(ranked, front, strict=True):
        made[at] = replace(made[at], front=float(share))
    for budget in {run["budget"] for run in runs if run["method"] != FULL and run["budget_kind"] != "native"}:
        column = [i for i, run in enumerate(runs) if run["budget"] == budget and run["method"] != FULL]
        bounds = rank_intervals(draws[:, column])
        for i, (low, high) in zip(column, bounds.tolist(), strict=True):
            rank = 1 + sum(runs[other]["accuracy"] > runs[i]["accuracy"] for other in column)
            made[ranked[i]] = replace(made[ranked[i]], rank=(rank, low, high))
    return made


def _categories(samples: pd.DataFrame, runs: Sequence[Row]) -> dict[str, int]:
    one = samples[samples["run_id"] == runs[0]["run_id"]]
    return {str(name): int(count) for name, count in one.groupby("category").size().items()}


def _facts(store: Store, runs: Sequence[Row]) -> dict[str, Mapping[str, Any]]:
    marks = ", ".join("?" for _ in runs)
    found = store.query(
        f"SELECT DISTINCT machine_id, facts FROM environments WHERE run_id IN ({marks}) ORDER BY ALL",
        [run["run_id"] for run in runs],
    )
    return {at: json.loads(facts) for at, facts in zip(found["machine_id"], found["facts"], strict=True)}
