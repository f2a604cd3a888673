"""Latency: where the time goes, what selection costs, and from how many tokens on pruning pays."""

from __future__ import annotations

from collections.abc import Iterator

import streamlit as st

from harness.records.records import FULL
from harness.report.blocks import Block, Chart, Heading, Paragraph, Table
from harness.report.gather import Group, Line
from harness.store.lookup import Row
from leaderboard import charts, filters
from leaderboard.data import Board, break_even_of
from leaderboard.render_streamlit import draw

HOW = (
    "Medians of a prefill; each run was timed in turns with no pruning in one process, so compare the two bars of a "
    "pair, never bars of different machines. LR: share of prefill time saved, below zero slower than no pruning. "
    "Selection tax: share of the time that could be saved which the selection itself takes."
)


def show(board: Board) -> None:
    """The page, with its filters."""
    left, middle, right = st.columns([2, 1, 1])
    with left:
        _, group = filters.pick_group(board)
    with middle:
        machine = filters.pick("Machine", "machine", machines_of(group))
    with right:
        budget = filters.pick(
            "Budget", "timed", ["all", *sorted({line.run["budget"] for line in timed(group, machine)})]
        )
    draw(blocks(board, group, machine, budget or "all"))


def timed(group: Group, machine: str | None) -> list[Line]:
    """Pruned runs with times, of one machine."""
    return [
        line
        for line in group.lines
        if line.run["method"] != FULL and line.run["pruned_ms"] and machine_name(group, line.run) == machine
    ]


def machines_of(group: Group) -> list[str]:
    """The machines that timed something."""
    return sorted({machine_name(group, line.run) for line in group.lines if line.run["pruned_ms"]})


def machine_name(group: Group, run: Row) -> str:
    """A machine in words: its device, and the beginning of its id."""
    hardware = group.facts.get(run["machine_id"], {}).get("hardware", {})
    device = next((str(hardware[key]) for key in ("gpu", "device", "cpu") if hardware.get(key)), "machine")
    return f"{device} · {run['machine_id'][:8]}"


def blocks(board: Board, group: Group, machine: str | None, budget: str) -> Iterator[Block]:
    """Stage bars, figures, gains below zero by name, and the break-even."""
    lines = [line for line in timed(group, machine) if budget in ("all", line.run["budget"])]
    if not lines:
        yield Paragraph("Nothing of this group was timed yet: harness run --budget 50% (without --no-timing)", "note")
        return
    yield from _named_losses(lines)
    pairs = [(f"{line.name} {line.run['budget']}", line.run["base_ms"], line.run["pruned_ms"]) for line in lines]
    yield Chart(charts.stage_bars(pairs), "stages")
    yield Paragraph(HOW, "soft")
    yield _figures(lines)
    clocks = sorted({line.run["latency_clock"] for line in lines if line.run["latency_clock"]})
    yield Paragraph(f"Clock: {', '.join(clocks)}.", "soft")
    shapes = break_even_of(board.place, tuple(line.run["run_id"] for line in lines))
    crossing = [(f"{line.name} {line.run['budget']}", line.run["method"], shapes[line.run["run_id"]]) for line in lines]
    yield Heading("Break-even")
    yield Paragraph(
        "A mark for each timed shape of prompt. Below the line the selection costs more than pruning saves.", "soft"
    )
    yield Chart(charts.break_even(crossing), "break-even")


def _named_losses(lines: list[Line]) -> Iterator[Block]:
    slower = [
        f"{line.name} {line.run['budget']} ({line.run['lr'] * 100:+.1f} %)"
        for line in lines
        if line.run["lr"] is not None and line.run["lr"] < 0
    ]
    if slower:
        yield Paragraph(f"Slower than no pruning: {', '.join(slower)}.", "warning")
    if any(line.run["indicative"] for line in lines):
        told = [reason for line in lines for reason in (line.run["indicative_because"] or "").split("; ") if reason]
        yield Paragraph(f"Indicative only: {'; '.join(dict.fromkeys(told)) or 'not publishable'}.", "note")


def _figures(lines: list[Line]) -> Table:
    def percent(run: Row, name: str) -> float | None:
        return None if run[name] is None else round(100 * run[name], 1)

    rows = [
        (
            line.name,
            run["budget"],
            round(run["base_ms"].get("total", 0.0), 2),
            round(run["pruned_ms"].get("total", 0.0), 2),
            percent(run, "lr"),
            percent(run, "lr_low"),
            percent(run, "lr_high"),
            percent(run, "roofline_lr"),
            percent(run, "select_tax"),
            round(run["pruned_ms"].get("select", 0.0), 2),
            run["latency_pairs"],
            run["host_bound"],
        )
        for line in lines
        for run in (line.run,)
    ]
    columns = (
        *(
            "method",
            "budget",
            "unpruned, ms",
            "pruned, ms",
            "LR, %",
            "LR low, %",
            "LR high, %",
            "LR at roofline, %",
        ),
        *("selection tax, %", "selection, ms", "pairs", "host-bound"),
    )
    return Table(columns, rows, "latency")
