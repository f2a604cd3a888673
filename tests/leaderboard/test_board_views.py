"""Small decisions of the board's pages, on lines made by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")
from harness.report.gather import Group, Line
from harness.report.ranking import answer
from leaderboard.views import latency, method, pareto


def line(name: str, rank: tuple[int, int, int] | None = None, **known: object) -> Line:
    about = {"preset": "", "seed": 0, "budget": "50%", "ra": 0.9, "pruned_ms": {"total": 1.0}, "late_ceiling_lr": None}
    return Line({**about, "method": name, **known}, {}, rank=rank)


def test_controls_that_do_better_than_the_best_method_are_named():
    lines = [line("fastv", (2, 2, 2), ra=0.8), line("random", (1, 1, 1), ra=0.85), line("grid", (3, 3, 3), ra=0.7)]
    assert answer(lines).endswith("Yet these controls do better: random.")
    assert answer(lines[1:]) == "Only controls have run at this budget."


def test_methods_that_reach_rank_one_are_named_with_the_best():
    lines = [line("fastv", (1, 1, 2), ra=0.9), line("pact", (2, 1, 2), ra=0.88), line("saint", (3, 3, 3), ra=0.5)]
    assert answer(lines) == "Best at 50%: fastv, RA 90.0 %, not told apart from pact."


def test_times_of_another_machine_are_never_beside_these():
    lines = [line("fastv", machine_id="a" * 16), line("pact", machine_id="b" * 16), line("full", machine_id="a" * 16)]
    facts = {"a" * 16: {"hardware": {"gpu": "H100"}}, "b" * 16: {"hardware": {"cpu": "EPYC"}}}
    group = Group("m", "b", lines, {}, 1, [], facts)
    assert latency.machines_of(group) == ["EPYC · bbbbbbbb", "H100 · aaaaaaaa"]
    assert [one.name for one in latency.timed(group, "H100 · aaaaaaaa")] == ["fastv"]


def test_the_late_pruning_ceiling_is_the_highest_that_was_found():
    assert pareto._ceiling([line("a"), line("b", late_ceiling_lr=0.2), line("c", late_ceiling_lr=0.3)]) == 0.3
    assert pareto._ceiling([line("a")]) is None


def test_time_saved_becomes_a_cost_and_its_bounds_change_places():
    assert pareto.COSTS["latency"].of(line("fastv", lr=0.25, lr_low=0.125, lr_high=0.5)) == (0.75, 0.5, 0.875)
    assert pareto.COSTS["latency"].of(line("fastv", lr=None)) is None


def test_controls_come_last_among_the_methods():
    group = Group("m", "b", [line("grid"), line("vprune"), line("full")], {}, 1, [])
    assert method.methods_of(group) == ["vprune", "grid"]
