"""Several benchmarks of a suite as one: hand-computable means, intervals, ranks, and what is missing by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")
from boards import page, texts
from stored_runs import add_run, arm, new_store

from harness.report.gather import Line, Scores
from harness.stats import ra_macro
from leaderboard import suites
from leaderboard.data import open_board
from leaderboard.export import export
from leaderboard.suites import certainty, suite_group, suites_of

ASKED = {"pope": 12, "gqa": 16}
RIGHT = {  # no pruning has all of pope and eight of gqa
    "divprune": {"pope": 12, "gqa": 6},
    "random": {"pope": 6, "gqa": 4},
    "fastv": {"pope": 3, "gqa": 1},
    "pact": {"pope": 12},
}
NAME = "reference-a · suite smoke · 2 of 4 benchmarks"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = new_store(tmp_path_factory.mktemp("suites"))
    for benchmark, count in (("pope", 12), ("gqa", 8)):
        about = {"benchmark": benchmark, "sample_ids": benchmark}
        asked = ASKED[benchmark]
        full = add_run(made, arm("full", **about), [1.0] * count + [0.0] * (asked - count))
        for method, right in RIGHT.items():
            if benchmark in right:
                scores = [1.0] * right[benchmark] + [0.0] * (asked - right[benchmark])
                add_run(made, arm(method, **about), scores, full)
    return made.path


def lines_of(store: Path) -> dict[str, object]:
    board = open_board(store)
    return {line.name: line for line in suite_group(board, suites_of(board)[NAME]).lines}


def test_suites_with_the_same_benchmarks_are_offered_once_and_by_the_fullest(store: Path):
    assert list(suites_of(open_board(store))) == [NAME]


def test_the_mean_over_benchmarks_of_each_ones_ra_with_its_interval(store: Path):
    lines = lines_of(store)
    assert lines["divprune"].run["ra"] == pytest.approx((12 / 12 + 6 / 8) / 2)
    assert lines["random"].run["ra"] == pytest.approx((6 / 12 + 4 / 8) / 2)
    assert lines["full"].run["ra"] == 1.0
    told = ra_macro(
        (np.arange(asked) < right, np.arange(asked) < full, np.arange(asked))
        for asked, right, full in ((12, 12, 12), (16, 6, 8))
    )
    assert (lines["divprune"].run["ra_low"], lines["divprune"].run["ra_high"]) == pytest.approx((told.low, told.high))
    assert lines["divprune"].run["accuracy"] == pytest.approx((12 / 12 + 6 / 16) / 2)


def test_methods_are_ranked_and_judged_beside_random_on_drawn_images(store: Path):
    lines = lines_of(store)
    assert [lines[name].rank[0] for name in ("divprune", "random", "fastv")] == [1, 2, 3]
    assert lines["divprune"].beats_random == "yes" and lines["fastv"].beats_random == "no, worse"
    assert lines["divprune"].over_random.value == pytest.approx(0.875 - 0.5)
    assert lines["random"].over_random is None and lines["full"].rank is None


def test_a_method_without_a_benchmark_is_named_and_not_averaged(store: Path):
    shown = page("overview", store, on=NAME)
    assert shown.selectbox[0].value == NAME
    assert "Best at 50%: divprune, RA 87.5 %, ahead of every other method." in texts(shown)
    table = next(text for text in texts(shown) if "<table>" in text)
    assert ">pact<" not in table and "87.5" in table
    by_benchmark, lacking = (one.value.to_numpy().tolist() for one in shown.dataframe)
    assert by_benchmark[0] == ["divprune", 100.0, 75.0]
    assert lacking == [["pact", "50%", "gqa"]]
    assert any("nothing was run on textvqa_val, ai2d" in text for text in texts(shown))


def test_the_front_is_of_mean_ra(store: Path):
    board = open_board(store)
    group = suite_group(board, suites_of(board)[NAME])
    sure = certainty(group, {line.run["run_id"]: line.run["realised_tokens"] for line in group.lines})
    named = {line.name: sure[line.run["run_id"]] for line in group.lines}
    assert named["divprune"] == 1.0 and named["fastv"] == 0.0
    neither = (1 - 2 / 16) ** 16  # of the questions that divprune lost: then no pruning is not better
    assert named["full"] == pytest.approx(1 - neither, abs=0.02)
    shown = page("pareto", store, on=NAME)
    assert shown.dataframe[0].value.columns[2] == "RA, mean over benchmarks, %"
    assert len(shown.get("plotly_chart")) == 1


def test_pages_of_one_benchmark_do_not_offer_suites(store: Path):
    assert NAME not in page("compare", store, on=NAME).selectbox[0].options


def test_the_site_has_the_suite_too(store: Path, tmp_path: Path):
    export(store, tmp_path / "site")
    titles = [written.name for written in (tmp_path / "site").glob("*.html") if f">{NAME}<" in written.read_text()]
    assert any(name.startswith("pareto") for name in titles)
    assert any("Not averaged" in written.read_text() for written in (tmp_path / "site").glob("*.html"))


def test_p_is_adjusted_for_all_methods_at_the_budget(store: Path):
    """No draw speaks against divprune, so its own p is 2 x 1/4001; two methods are judged beside random."""
    assert lines_of(store)["divprune"].p == pytest.approx(2 * 2 / 4001)


def test_each_benchmark_is_drawn_by_a_seed_of_its_own():
    """Drawn by one seed, two alike benchmarks would rise and fall together, and their mean would spread as one does."""
    clusters = np.arange(200)
    one = Scores(pd.DataFrame({"full": np.ones(200), "run": clusters % 2}), clusters, {}, {})
    arms = [{name: Line({"run_id": run}, {}) for name in "ab"} for run in ("full", "run")]
    spread = suites._draws(arms, arms[0], {"a": one, "b": one})[:, 1].std()
    assert spread == pytest.approx(np.sqrt(0.25 / 200 / 2), rel=0.1)
