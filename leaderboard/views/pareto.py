"""Pareto: accuracy against what it costs, and how surely a point is on the front."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import streamlit as st

from harness.records.records import FULL, RANDOM
from harness.report.blocks import Block, Chart, Paragraph, Table
from harness.report.gather import Group, Line
from leaderboard import charts, filters
from leaderboard.data import Board, certainty_of
from leaderboard.render_streamlit import draw
from leaderboard.suites import SuiteGroup, certainty

HOW = (
    "Ringed points are on the front in at least half of the resampled sets of images: nothing else is at least as "
    "accurate for no more cost (tokens to the nearest whole one). Bars are 95 % intervals; on an axis of logarithms "
    "methods stand a little apart. Grey: controls, which do not look at what they drop."
)


@dataclass(frozen=True)
class Axis:
    """A cost of runs: the axis' title with its unit, and (value, low, high) of a run, None where unknown."""

    title: str
    of: Callable[[Line], tuple[float, float | None, float | None] | None]
    log: bool = False


def _time(line: Line) -> tuple[float, float | None, float | None] | None:
    run = line.run
    if run["method"] == FULL:
        return 1.0, None, None
    if run["lr"] is None:
        return None
    low, high = run["lr_high"], run["lr_low"]
    return 1 - run["lr"], None if low is None else 1 - low, None if high is None else 1 - high


def _column(name: str) -> Callable[[Line], tuple[float, float | None, float | None] | None]:
    return lambda line: None if not line.run[name] else (line.run[name], None, None)


COSTS = {
    "visual tokens": Axis("visual tokens a layer of the LLM (log)", _column("realised_tokens"), log=True),
    "FLOPs": Axis("prefill FLOPs / unpruned (ViT, projector, selection, LLM)", _column("flops_ratio")),
    "latency": Axis("prefill time / unpruned, same machine (1 − LR)", _time),
}


def show(board: Board) -> None:
    """The page, with its filters."""
    left, right = st.columns([3, 1])
    with left:
        name, group = filters.pick_group(board, suites=True)
    with right:
        cost = filters.pick("Cost", "cost", list(COSTS)) or "FLOPs"
    draw(blocks(board, name, group, cost))


def blocks(board: Board, name: str, group: Group, cost: str) -> Iterator[Block]:
    """The chart of a group and the table behind it."""
    axis = COSTS[cost]
    shown = [line for line in group.lines if line.ranked and axis.of(line) is not None]
    if not [line for line in shown if line.run["method"] != FULL]:
        hint = "harness run without --no-timing" if cost == "latency" else "harness run --budget 50%"
        yield Paragraph(f"No run of this group knows its {cost} yet: {hint}", "note")
        return
    costs = {line.run["run_id"]: axis.of(line)[0] for line in shown}
    judged = {run: round(value) if axis.log else value for run, value in costs.items()}
    macro = isinstance(group, SuiteGroup)
    sure = certainty(group, judged) if macro else certainty_of(board, name, judged)
    value, words = ("ra", "RA, mean over benchmarks, %") if macro else ("accuracy", "accuracy, %")
    figure = charts.trade_off(_curves(shown, axis, sure, value), _unpruned(group, value), axis.title, words, axis.log)
    if cost == "latency" and (ceiling := _ceiling(shown)) is not None:
        charts.add_ceiling(figure, 1 - ceiling)
    yield Chart(figure, f"pareto-{cost.replace(' ', '-')}")
    yield Paragraph(HOW, "soft")
    rows = [
        (
            line.name,
            line.run["budget"],
            round(100 * line.run[value], 1),
            round(costs[line.run["run_id"]], 1 if axis.log else 3),
            on,
        )
        for line in shown
        if (on := round(100 * sure.get(line.run["run_id"], 0.0))) is not None
    ]
    columns = ("method", "budget", words, axis.title.removesuffix(" (log)"), "on the front, % of draws")
    yield Table(columns, sorted(rows, key=lambda row: -row[-1]), "front")


def _curves(lines: list[Line], axis: Axis, sure: dict[str, float], value: str) -> list[charts.Curve]:
    pruned = [line for line in lines if line.run["method"] != FULL]
    names = sorted({line.name for line in pruned}, key=lambda name: (not name.startswith(RANDOM), name))
    return [
        charts.Curve(name, own[0].run["method"], [_point(line, axis, sure, value) for line in own])
        for name in names
        if (own := [line for line in pruned if line.name == name])
    ]


def _point(line: Line, axis: Axis, sure: dict[str, float], value: str) -> charts.Point:
    run, at = line.run, axis.of(line)
    assert at is not None
    x, x_low, x_high = at
    bounds = (run[key] if run[key] is not None else run[value] for key in (value, f"{value}_low", f"{value}_high"))
    y, low, high = (100 * bound for bound in bounds)
    on = sure.get(run["run_id"])
    words = f"{line.name} {run['budget']}: {y:.1f} % [{low:.1f}, {high:.1f}] at {x:.3g}"
    words += f", on the front in {on * 100:.0f} % of draws" if on is not None else ""
    return charts.Point(x, y, low, high, words, x_low, x_high, on)


def _unpruned(group: Group, value: str) -> float | None:
    full = group.full
    return None if full is None else 100 * full.run[value]


def _ceiling(lines: list[Line]) -> float | None:
    known = [line.run["late_ceiling_lr"] for line in lines if line.run["late_ceiling_lr"] is not None]
    return max(known, default=None)
