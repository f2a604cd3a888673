"""Profile: the traces of both arms of a run, stage by stage and operator by operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.latency.traces import Profile, read_profile
from harness.report.blocks import Block, Chart, Code, Heading, Paragraph, Table
from leaderboard import charts, filters
from leaderboard.data import Board
from leaderboard.render_streamlit import draw
from leaderboard.sources import arm_ms, folders

TOP = 15  # operators of an arm
ARMS = {"base": "no pruning"}
STAGES = {"vit": "ViT", "select": "selection", "llm": "LLM prefill"}


def show(board: Board) -> None:
    """The page, with its filter."""
    found = folders(board.path)
    chosen = filters.pick("Profile", "profile", list(found))
    draw(blocks(None if chosen is None else found[chosen], board.path))


def blocks(folder: Path | None, store: Path) -> Iterator[Block]:
    """Stages and operators of a folder of traces."""
    if folder is None:
        yield Paragraph(f"No profile lies in {store.parent / 'traces'} yet. Make one:", "note")
        yield Code(f"harness run --method fastv --budget 50% --profile {store.parent / 'traces' / 'fastv'}")
        return
    traces = read_profile(folder, TOP)
    yield Heading(f"{traces.title}, sample {traces.shape_key}")
    yield Chart(charts.stage_bars([(traces.title, arm_ms(traces, "base"), arm_ms(traces, "pruned"))]), "profile-stages")
    yield Paragraph("With the profiler's own time taken off; measured: by a clock, without the profiler.", "soft")
    yield Table(
        ("arm", "stage", "traced, ms", "corrected, ms", "measured, ms"), list(_stages(traces)), "profile-stages"
    )
    yield Heading("Operators by their own time, per prefill")
    yield Table(
        ("arm", "operator", "stage", "calls", "own time, ms", "share, %"), list(_operators(traces)), "operators"
    )
    yield Paragraph(f"The traces in {folder} open in Perfetto and in TensorBoard too.", "soft")


def _stages(traces: Profile) -> Iterator[tuple]:
    for arm, stages in traces.stages.items():
        for one in stages:
            yield (
                ARMS.get(arm, arm),
                STAGES.get(one.stage, one.stage),
                round(one.traced_ms, 3),
                round(one.ms, 3),
                round(one.measured_ms, 3),
            )


def _operators(traces: Profile) -> Iterator[tuple]:
    for arm, operators in traces.operators.items():
        for one in operators:
            yield (
                ARMS.get(arm, arm),
                one.name,
                STAGES.get(one.stage, one.stage),
                round(one.calls, 1),
                round(one.ms, 3),
                round(100 * one.share, 1),
            )
