"""Samples: one question, both answers, and the units that survive each site, over the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import streamlit as st
from PIL import Image

from harness.records.records import FULL
from harness.reference.paths import SUITE
from harness.reference.suite import Question, load_questions
from harness.report.blocks import Block, Chart, Heading, Html, Paragraph, Table
from harness.report.gather import Group
from harness.report.palette import mark_of
from harness.store.lookup import Row, name_of
from leaderboard import filters
from leaderboard.data import Board, sample_ids, sample_rows
from leaderboard.overlay import GONE, KEPT, grid_of, key, overlay, stages
from leaderboard.render_streamlit import draw

WHICH = ("all", "lost by pruning", "gained by pruning", "wrong")
MOST = 1000  # samples in the list
UNTOLD = "The record was made before merging was noted: what is dark was dropped, or merged into a kept token."


def show(board: Board) -> None:
    """The page, with its filters."""
    _, group = filters.pick_group(board)
    runs = [(name_of(line.run), line.run) for line in group.lines if line.run["method"] != FULL]
    left, middle, right = st.columns([2, 1, 2])
    with left:
        run = filters.pick_run("Run", "run", runs, default=first_pruner(runs, group.middle_budget))
    with middle:
        which = filters.pick("Show", "which", WHICH) or "all"
    with right:
        sample = filters.pick("Sample", "sample", samples_of(board, group, run, which))
    draw(blocks(board, group, run, sample))


def first_pruner(runs: Sequence[tuple[str, Row]], budget: str | None) -> int:
    """The place of the first run that is no control, at this budget where there is one."""
    ours = [at for at, (_, run) in enumerate(runs) if not mark_of(run["method"]).control]
    middle = [at for at in ours if runs[at][1]["budget"] == budget]
    return next(iter(middle or ours), 0)


def samples_of(board: Board, group: Group, run: Row | None, which: str) -> list[str]:
    """The ids of the samples that a filter lets through, at most `MOST`."""
    if run is None:
        return []
    own = sample_ids(board.place, run["run_id"])
    full = group.full
    before = {one[0]: one[2] for one in sample_ids(board.place, full.run["run_id"])} if full else {}
    tests = {
        "all": lambda score, base: True,
        "lost by pruning": lambda score, base: score < base,
        "gained by pruning": lambda score, base: score > base,
        "wrong": lambda score, base: score < 1,
    }
    return [one for one, _, score in own if tests[which](score, before.get(one, score))][:MOST]


def blocks(board: Board, group: Group, run: Row | None, sample: str | None) -> Iterator[Block]:
    """One sample of a run beside no pruning."""
    if run is None or sample is None:
        yield Paragraph("No sample fits: choose another run, or show all.", "note")
        return
    full = group.full
    ids = (run["run_id"], *([full.run["run_id"]] if full else []))
    rows = sample_rows(board.place, sample, ids)
    own = rows.get(run["run_id"])
    if own is None:
        yield Paragraph("This run has no such sample.", "note")
        return
    question = question_of(run["benchmark"], sample)
    yield Heading(question.question if question else sample)
    yield Table(("", "answer", "score"), list(_answers(own, full and rows.get(full.run["run_id"]), run)), "answers")
    yield from _pictures(own, question)
    yield Paragraph(_tokens(own), "soft")


def _answers(
    own: Mapping[str, Any], base: Mapping[str, Any] | None, run: Row
) -> Iterator[tuple[str, str, float | None]]:
    yield "expected", own["answer"], None
    if base:
        yield "no pruning", base["prediction"], base["score"]
    yield name_of(run), own["prediction"] if own["error"] is None else f"error: {own['error']}", own["score"]


def _pictures(own: Mapping[str, Any], question: Question | None) -> Iterator[Block]:
    image = Image.open(SUITE / question.image) if question and (SUITE / question.image).is_file() else None
    sites = stages(*(masks(own[name]) for name in ("kept", "merged")), int(own["full_tokens"]))
    if image is None:
        yield Paragraph("The image of this sample is not on this machine, so there is nothing to draw over.", "soft")
        return
    grid = grid_of(int(own["full_tokens"]), *image.size)
    if grid is None:
        yield Paragraph(
            "The units of this sample do not fit its image as one grid (tiles): they are not drawn.", "soft"
        )
        return
    yield Chart(overlay(image, grid, sites, question.boxes), "sample")
    found = {KEPT}.union(*(map(int, states) for states in sites.values()))
    yield Html(key(sorted(found), bool(question.boxes)))
    if GONE in found:
        yield Paragraph(UNTOLD, "soft")


@lru_cache(maxsize=1)
def _embedded() -> dict[str, Question]:
    return {question.id: question for question in load_questions()}


def question_of(benchmark: str, sample_id: str) -> Question | None:
    """The question of a sample, which a store does not hold; None where its data set does not come with the project."""
    known = benchmark in ("reference", "reference-quick") and (SUITE / "questions.jsonl").is_file()
    return _embedded().get(sample_id) if known else None


def masks(found: Any) -> Mapping[str, str]:
    """The masks of a cell; none where it is NULL."""
    return dict(found) if isinstance(found, Mapping) else {}


def _tokens(own: Mapping[str, Any]) -> str:
    words = f"{own['full_tokens']} visual tokens without pruning"
    if own["realised_tokens"] is not None:
        words += f", {own['realised_tokens']:.1f} on average in a layer of the LLM"
    if (recall := own["recall_of_target"]) is not None and recall == recall:
        words += f"; {recall * 100:.0f} % of the target's units survive"
    return words + "."
