"""Several benchmarks of a suite as one: each method's mean over benchmarks of its RA (`harness.stats.ra_macro`).

A method that lacks a benchmark is named with what it lacks, and never averaged over the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from harness.benchmarks.suites import SUITES, Suite
from harness.records.figures import LOCAL, SELF_REPORTED
from harness.records.records import FULL, RANDOM
from harness.report.gather import Group, Line, Scores, finished, resamples_for, with_ranks
from harness.stats import Interval, drawn_means, front_probabilities, holm, ra_macro
from harness.stats.fronts import SEED
from harness.store.lookup import Row
from leaderboard.data import Board, scores_of
from leaderboard.sources import Place

Setup = tuple[str, str, str, str, int]  # method, preset, settings, budget, seed


@dataclass(frozen=True)
class Choice:
    """A suite for one model. groups: benchmark -> the name of its group, for those that have an unpruned run."""

    suite: Suite
    groups: Mapping[str, str]

    @property
    def missing(self) -> list[str]:
        """Benchmarks of the suite that this model has not answered unpruned."""
        return [name for name in self.suite.benchmarks if name not in self.groups]


@dataclass(frozen=True)
class SuiteGroup(Group):
    """Lines whose `ra` is the mean over benchmarks; what only a benchmark knows is None.

    by_benchmark: run id of a line -> benchmark -> its RA. lacking: (line's name, budget, benchmarks without a ranked
    run). draws: (resamples, lines) mean RA over drawn images, in the order of the lines.
    """

    choice: Choice = None
    by_benchmark: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    lacking: Sequence[tuple[str, str, Sequence[str]]] = ()
    draws: NDArray[np.float64] | None = None


def suites_of(board: Board) -> dict[str, Choice]:
    """The suites of which a model has at least two benchmarks, by what the filter shows."""
    answered: dict[tuple, dict[str, str]] = {}
    for name, runs in board.groups.items():
        first = runs[0]
        if any(run["method"] == FULL and run["accuracy"] for run in runs):
            key = first["model"], first["model_revision"], first["provenance"] == SELF_REPORTED
            answered.setdefault(key, {}).setdefault(first["benchmark"], name)
    found = {}
    for (model, _, reported), names in answered.items():
        for choice in _distinct(names):
            words = f"{model} · suite {choice.suite.name} · {len(choice.groups)} of {len(choice.suite.benchmarks)}"
            found[f"{words} benchmarks" + (f" · {SELF_REPORTED}" if reported else "")] = choice
    return found


def _distinct(names: Mapping[str, str]) -> list[Choice]:
    """Of the suites that come to the same benchmarks, the one that has the most of its own."""
    best: dict[frozenset[str], Choice] = {}
    for suite in sorted(SUITES.values(), key=lambda suite: len(suite.benchmarks)):
        groups = {one: names[one] for one in suite.benchmarks if one in names}
        if len(groups) > 1:
            best.setdefault(frozenset(groups), Choice(suite, groups))
    return sorted(best.values(), key=lambda choice: -len(choice.groups))


def suite_group(board: Board, choice: Choice) -> SuiteGroup:
    """The lines of a suite, ranked by their mean RA."""
    return _suite_group(board.place, choice.suite.name, tuple(choice.groups.items()), board, choice)


def certainty(group: SuiteGroup, costs: Mapping[str, float]) -> dict[str, float]:
    """Run id of a line -> how surely it is on the front of mean RA against these costs."""
    places = [(at, line.run["run_id"]) for at, line in enumerate(group.lines) if line.run["run_id"] in costs]
    drawn = group.draws[:, [at for at, _ in places]]
    shares = front_probabilities(drawn, [costs[run] for _, run in places])
    return {run: float(share) for (_, run), share in zip(places, shares, strict=True)}


@st.cache_resource(show_spinner=False, max_entries=16)
def _suite_group(
    place: Place, suite: str, names: tuple[tuple[str, str], ...], _board: Board, _choice: Choice
) -> SuiteGroup:
    runs = _board.groups
    scores = {benchmark: scores_of(place, finished(runs[name])) for benchmark, name in names}
    arms = {
        benchmark: {
            _setup(run): Line(run, {}) for run in runs[name] if run["run_id"] in scores[benchmark].table and _ok(run)
        }
        for benchmark, name in names
    }
    every = list(dict.fromkeys(arm for found in arms.values() for arm in found))
    whole = [arm for arm in every if all(arm in found for found in arms.values())]
    full = next(arm for arm in whole if arm[0] == FULL)
    own = {arm: {benchmark: arms[benchmark][arm] for benchmark in arms} for arm in whole}
    lines = [_line(suite, own[arm], own[full], scores) for arm in whole]
    draws = _draws([own[arm] for arm in whole], own[full], scores)
    order = sorted(range(len(lines)), key=lambda at: (whole[at] != full, -(lines[at].run["realised_tokens"] or 0)))
    lines, draws = [lines[at] for at in order], draws[:, order]
    return SuiteGroup(
        model=own[full][names[0][0]].run["model"],
        benchmark=f"suite {suite}",
        lines=_judged(lines, draws),
        categories={},
        images=sum(len(np.unique(found.clusters)) for found in scores.values()),
        failures=[],
        choice=_choice,
        by_benchmark={_run_id(suite, arm): {name: line.run["ra"] for name, line in own[arm].items()} for arm in whole},
        lacking=list(_lacking(arms, [arm for arm in every if arm not in own])),
        draws=draws,
    )


def _ok(run: Row) -> bool:
    """True if a run kept to its budget, measured."""
    return Line(run, {}).ranked


def _setup(run: Row) -> Setup:
    """Identity of a run without its benchmark."""
    settings = json.dumps(run["settings"], sort_keys=True)
    return (FULL, "", "", "", 0) if run["method"] == FULL else (
        run["method"], run["preset"], settings, run["budget"], run["seed"],
    )  # fmt: skip


def _run_id(suite: str, arm: Setup) -> str:
    return "·".join([suite, *map(str, arm)])


def _line(suite: str, own: Mapping[str, Line], full: Mapping[str, Line], scores: Mapping[str, Scores]) -> Line:
    """A line of means. own, full: benchmark -> the arm's run and the unpruned one."""
    found = ra_macro(
        (scores[name].table[line.run["run_id"]], scores[name].table[full[name].run["run_id"]], scores[name].clusters)
        for name, line in own.items()
    )
    first = next(iter(own.values())).run
    same = ("method", "preset", "settings", "budget", "budget_kind", "budget_value", "seed", "status", "model")
    means = {name: _mean([line.run[name] for line in own.values()]) for name in ("accuracy", *_MEANS)}
    bounds = {"ra": found.value, "ra_low": _bound(found.low), "ra_high": _bound(found.high)}
    told = {
        "run_id": _run_id(suite, _setup(first)),
        "benchmark": f"suite {suite}",
        "n": sum(line.run["n"] for line in own.values()),
        "provenance": next((one for one in (line.run["provenance"] for line in own.values()) if one != LOCAL), LOCAL),
    }
    return Line({**dict.fromkeys(first), **{name: first[name] for name in same}, **means, **bounds, **told}, {})


_MEANS = ("realised_tokens", "flops_ratio", "llm_flops_ratio")


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))


def _bound(value: float) -> float | None:
    return None if value != value else value


def _draws(
    arms: Sequence[Mapping[str, Line]], full: Mapping[str, Line], scores: Mapping[str, Scores]
) -> NDArray[np.float64]:
    """(resamples, arms) mean RA over drawn images; each benchmark is drawn by a seed of its own."""
    count = min(resamples_for(found.clusters) for found in scores.values())
    drawn = []
    for number, (name, found) in enumerate(scores.items()):
        table = found.table[[arm[name].run["run_id"] for arm in arms]].to_numpy().T
        means = drawn_means(table, found.clusters, resamples=count, seed=SEED + number)
        drawn.append(means / found.table[full[name].run["run_id"]].mean())
    return np.mean(drawn, axis=0)


def _judged(lines: list[Line], draws: NDArray[np.float64]) -> list[Line]:
    """The lines with ranks, and beside random choice, budget by budget."""
    made = with_ranks(lines, draws, "ra")
    for budget in dict.fromkeys(line.run["budget"] for line in made if line.rank):
        column = [at for at, line in enumerate(made) if line.rank and line.run["budget"] == budget]
        random = next((at for at in column if made[at].run["method"] == RANDOM), None)
        if random is not None:
            _beside(made, draws, [at for at in column if made[at].run["method"] != RANDOM], random)
    return made


def _beside(made: list[Line], draws: NDArray[np.float64], column: Sequence[int], random: int) -> None:
    """Put the difference to random choice into the lines; p: twice the share of draws on the other side of zero."""
    p = {}
    for at in column:
        over = draws[:, at] - draws[:, random]
        low, high = map(float, np.quantile(over, (0.025, 0.975)))
        value = made[at].run["ra"] - made[random].run["ra"]
        made[at] = replace(made[at], over_random=Interval(value, low, high, len(draws), "percentiles of draws"))
        p[str(at)] = min(1.0, 2 * (min((over <= 0).sum(), (over >= 0).sum()) + 1) / (len(over) + 1))
    for at, adjusted in holm(p).items():
        made[int(at)] = replace(made[int(at)], p=adjusted)


def _lacking(
    arms: Mapping[str, Mapping[Setup, Line]], partial: Sequence[Setup]
) -> Iterator[tuple[str, str, list[str]]]:
    for arm in partial:
        line = next(found[arm] for found in arms.values() if arm in found)
        yield line.name, line.run["budget"], [name for name, found in arms.items() if arm not in found]
