"""The board's parts: which units live, marks, fronts, what may be named, and the site that needs no server."""

from __future__ import annotations

import json
import re
import sys
from importlib import util
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("streamlit")
pytest.importorskip("plotly")
from boards import HOSTILE, QUICK, small_store
from commands import commands_in
from stored_runs import add_run, arm, new_store

from harness.records.errors import HarnessError
from harness.report import gather
from harness.report.blocks import Chart, Paragraph, Table, html_of
from harness.report.gather import Group, Line, means_over_draws
from harness.report.palette import mark_of
from harness.report.ranking import ranking
from harness.store.database import Store
from harness.submissions.all_runs import all_runs
from leaderboard import charts
from leaderboard import render_streamlit as drawing
from leaderboard.data import certainty_of, group_of, open_board
from leaderboard.export import export
from leaderboard.overlay import DROPPED, GONE, KEPT, MERGED, bits, grid_of, key, overlay, stages

ROOT = Path(__file__).resolve().parents[2]


def test_bit_i_of_a_mask_is_unit_i():
    assert bits("5", 4).tolist() == [True, False, True, False]


@pytest.mark.parametrize("mask", ["zz", "", "-1", "1f", "<b>"])
def test_a_mask_that_does_not_fit_is_left_out(mask: str):
    assert bits(mask, 4) is None
    assert stages({"interface": mask, "patches": "f"}, {}, 4) == {}


def test_a_unit_is_kept_merged_or_dropped_and_gone_where_a_record_does_not_say():
    told = stages({"interface": "1"}, {"interface": "6"}, 4)["interface"]
    assert told.tolist() == [KEPT, MERGED, MERGED, DROPPED]
    for silent in ({}, {"interface": "<b>"}, {"in-llm:2": "6"}):
        assert stages({"interface": "1"}, silent, 4)["interface"].tolist() == [KEPT, GONE, GONE, GONE]


def test_each_site_has_its_own_picture_behind_the_image_as_it_is():
    first, second = (np.array(states, dtype=np.int8) for states in ([KEPT] * 3 + [DROPPED], [KEPT] + [DROPPED] * 3))
    figure = overlay(Image.new("RGB", (20, 20)), (2, 2), {"interface": first, "in-llm:2": second})
    assert [int((trace.z == KEPT).sum()) for trace in figure.data] == [4, 3, 1]
    assert [note.text.partition("<br>")[0] for note in figure.layout.annotations] == [
        "the image", "behind the projector", "before layer 2 of the LLM",
    ]  # fmt: skip


def test_a_run_that_lacks_samples_is_left_out_of_its_group(tmp_path: Path):
    store = new_store(tmp_path)
    full = add_run(store, arm("full", **QUICK), [1.0] * 8)
    add_run(store, arm("fastv", **QUICK), [1.0] * 6 + [0.0] * 2, full)
    add_run(store, arm("divprune", **QUICK), [1.0] * 3)
    board = open_board(store.path)
    assert [line.name for line in group_of(board, next(iter(board.groups))).lines] == ["full", "fastv"]


def test_a_merged_unit_has_a_mark_of_its_own_in_the_picture_and_in_its_legend():
    states = np.array([KEPT, MERGED, DROPPED, DROPPED], dtype=np.int8)
    figure = overlay(Image.new("RGB", (20, 20)), (2, 2), {"interface": states})
    assert figure.data[1].text.tolist() == [["", "+"], ["", ""]]
    assert "1 of 4 kept, 1 merged" in figure.layout.annotations[1].text
    assert "behind the projector" in figure.layout.annotations[1].text
    legend = str(key([DROPPED, MERGED, KEPT], boxes=False))
    assert "merged into a kept token" in legend and legend.count("swatch") == 3


def test_sites_come_in_the_order_of_the_model():
    kept = {"in-llm:10": "1", "interface": "3", "in-llm:2": "3", "pre-tokenization": "f", "in-vit:5": "7"}
    assert list(stages(kept, {}, 4)) == ["pre-tokenization", "in-vit:5", "interface", "in-llm:2", "in-llm:10"]


@pytest.mark.parametrize(
    ("units", "sides", "grid"), [(64, (256, 256), (8, 8)), (12, (128, 96), (3, 4)), (7, (100, 100), None)]
)
def test_a_grid_is_found_where_units_fit_the_image(units: int, sides: tuple[int, int], grid: tuple[int, int] | None):
    assert grid_of(units, *sides) == grid


def test_every_method_of_ours_has_a_look_of_its_own():
    ours = re.findall(r"^## (\S+)", (ROOT / "docs" / "methods.md").read_text(), flags=re.MULTILINE)
    marks = [mark_of(name) for name in ours]
    assert len(set(marks)) == len(marks) > 15
    assert mark_of("somebody/elses.py:Pruner") == mark_of("somebody/elses.py:Pruner")


def test_a_shared_set_of_images_gives_every_run_the_same_draws():
    scores = np.array([[1.0, 0.0] * 10, [1.0, 0.0] * 10, [1.0] * 20])
    drawn = means_over_draws(scores, np.arange(20))
    assert (drawn[:, 0] == drawn[:, 1]).all() and (drawn[:, 2] == 1).all()
    assert drawn[:, 0].mean() == pytest.approx(0.5, abs=0.02)
    assert len(drawn) == 4000 and len(means_over_draws(np.ones((1, 9000)), np.arange(9000))) == 400


def test_the_front_on_the_board_is_what_is_better_for_no_more(tmp_path: Path):
    board = open_board(small_store(tmp_path))
    (name,) = board.groups
    ran = [run for run in board.rows if run["status"] == "ok"]
    shares = certainty_of(board, name, {run["run_id"]: run["realised_tokens"] for run in ran})
    sure = {run["method"] + run["budget"]: shares[run["run_id"]] for run in ran}
    assert sure["divprune50%"] == sure["divprune25%"] == 1.0
    assert sure["full100%"] == 0.0


def test_bars_reach_from_the_lower_to_the_upper_bound():
    point = charts.Point(16.0, 80.0, 70.0, 85.0, "", x_low=15.0, x_high=18.0)
    (mark,) = charts.trade_off([charts.Curve("fastv", "fastv", [point])], None, "tokens", "accuracy, %", log=False).data
    assert (mark.error_y.array, mark.error_y.arrayminus) == ((5.0,), (10.0,))
    assert (mark.error_x.array, mark.error_x.arrayminus) == ((2.0,), (1.0,))


def test_rings_lie_around_the_marks_that_they_speak_of():
    sure = charts.Point(16.0, 80.0, 70.0, 90.0, "", certainty=0.9)
    curves = [charts.Curve(name, name, [sure]) for name in ("fastv", "divprune", "pact")]
    *marks, rings = charts.trade_off(curves, None, "tokens", "accuracy, %", log=True).data
    assert sorted(rings.x) == sorted(mark.x[0] for mark in marks)


def test_what_reaches_rank_one_is_tied_wherever_it_stands_and_controls_never_are():
    def line(method: str, rank: tuple[int, int, int]) -> Line:
        known = {"ra": 0.9, "accuracy": 0.9, "provenance": "local", "method": method, "preset": "", "seed": 0}
        unknown = dict.fromkeys(["lr", "realised_tokens", "flops_ratio", "indicative", "status", "batch"])
        return Line({**unknown, **known}, {}, rank=rank)

    shown = str(ranking([line("fastv", (2, 1, 3)), line("pact", (3, 2, 3)), line("random", (1, 1, 3))], None))
    rows = {name: kind for kind, name in re.findall(r'<tr class="([^"]*)">.*?<span>(\w+)</span>', shown)}
    assert rows == {"fastv": "tied", "pact": "", "random": "control"}


def test_runs_at_their_own_budgets_are_no_budget_to_choose():
    known = {"method": "vprune", "status": "ok", "realised_tokens": 30.0}
    asked = [("50%", "layer_average"), ("native", "native"), ("25%", "layer_average")]
    lines = [Line({**known, "budget": budget, "budget_kind": kind}, {}) for budget, kind in asked]
    assert Group("m", "b", lines, {}, 1, []).budgets == ["50%", "25%"]


def test_the_board_begins_at_the_middle_budget():
    known = {"method": "fastv", "status": "ok", "budget_kind": "layer_average"}
    lines = [Line({**known, "budget": f"{share}%", "realised_tokens": share}, {}) for share in (11, 80, 25, 50)]
    assert Group("m", "b", lines, {}, 1, []).middle_budget == "50%"


def test_names_in_charts_hold_no_tags():
    assert charts.plain_text("<b>&") == "&lt;b&gt;&amp;" and charts.plain_text("x" * 300)[-1] == "…"


def test_the_numbers_of_a_column_end_alike():
    table = Table(("a", "b", "c"), [(1.0, 1, "x"), (2.25, 2, True), (None, None, None)], "x")
    assert [table.decimals(at) for at in range(3)] == [2, None, None]
    assert "<td>1.00</td>" in html_of(table)
    assert drawing.frame_of(table)["c"].tolist()[:2] == ["x", "yes"]


def test_no_file_of_the_board_is_named_like_a_library():
    """`streamlit run` puts the script's folder first on sys.path."""
    names = {path.stem for path in (ROOT / "leaderboard").iterdir() if not path.stem.startswith("_")}
    assert names & (set(sys.stdlib_module_names) | set(packages_distributions())) == set()


def test_the_board_shows_the_figures_that_an_export_writes(tmp_path: Path):
    path = small_store(tmp_path)
    crossed = [0.0] * 7 + [1.0] * 5  # right where random is wrong: scores must stay with their questions
    add_run(Store(path), arm("saint", **QUICK), crossed, arm("full", **QUICK))
    board = open_board(path)
    (name,) = board.groups
    (written,) = gather(all_runs(Store(path), None, print))
    assert group_of(board, name) == written


def test_long_and_hostile_text_is_cut_and_escaped():
    written = html_of(Paragraph(HOSTILE * 10**5))
    assert "<img" not in written and "letters more" in written and len(written) < 10_000
    table = html_of(Table((HOSTILE,), [(HOSTILE,)], "x"))
    assert "<img" not in table
    figure = charts.differences([("</script>" + HOSTILE, 1.0, 0.5, 1.5)], "points")
    chart = html_of(Chart(figure, "x"))
    assert chart.count("</script>") == 1 and "<img" not in chart
    assert drawing._plain_markdown("[a](http://x) <b>") == r"\[a\]\(http\:\/\/x\) \<b\>"


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    store = new_store(folder)
    full = add_run(store, arm("full", **QUICK), [1.0] * 4)
    add_run(
        store, arm(HOSTILE, **QUICK), [0.0] * 4, full, answers=[HOSTILE, "</script><script>alert(1)", "x" * 10**7, "'"]
    )
    add_run(store, arm("random", **QUICK), [0.0, 1.0, 0.0, 1.0], full)
    export(store.path, folder / "site")
    return folder / "site"


def test_every_page_of_the_site_is_there_and_asks_nothing_of_anybody(hostile_site: Path):
    pages = {page: page.read_text() for page in hostile_site.glob("*.html")}
    titles = {re.search("<h1>(.*?)</h1>", text)[1] for text in pages.values()}
    assert titles == {"Overview", "Pareto", "Method", "Compare", "Samples", "Latency", "Profile", "Published", "Submit"}
    for text in pages.values():
        for kind, target in re.findall(r'(href|src)="([^"]*)"', text):
            is_address = kind == "href" and target.startswith("https://") and "<h1>Published</h1>" in text  # of a paper
            assert is_address or (hostile_site / target).is_file(), target
    assert (hostile_site / "plotly.min.js").stat().st_size > 10**6


def test_hostile_runs_are_inert_on_the_site(hostile_site: Path):
    for page in hostile_site.glob("*.html"):
        text = page.read_text()
        assert "<img" not in text and "<script>alert" not in text
        assert len(text) < (600_000 if "<h1>Published</h1>" in text else 400_000)
        for data in re.findall(r'<script type="application/json">(.*?)</script>', text, flags=re.DOTALL):
            json.loads(data)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.html").write_text("years of work")
    with pytest.raises(HarnessError, match="holds something else"):
        export(small_store(tmp_path), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.html").read_text() == "years of work"


@pytest.mark.parametrize("words", [("board",), ("export", "--format", "site")])
def test_without_the_extra_a_command_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
):
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "plotly" else find(name, *rest))
    said = commands_in(tmp_path, monkeypatch, capsys)(*words)
    assert said.code == 3
    assert " needs plotly: pip install 'visual-token-pruning[board]'" in said.complaint
