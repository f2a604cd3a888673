"""Submissions on the board: beside the store, never in one ranking with it unless somebody repeated them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")
from board_batches import retire, submit, verify
from boards import HOSTILE, QUICK, page, texts
from stored_runs import add_run, arm, new_store

from harness.records.run_spec import RunSpec
from leaderboard.data import open_board
from leaderboard.export import export
from leaderboard.sources import opened, place_of

SAME = {**QUICK, "sample_ids": "5a" * 8, "code": "c0de" * 4}
GROUP = "reference-a · reference-quick · 12 questions"


@dataclass(frozen=True)
class Theirs:
    """Somebody else's three runs, submitted as one batch."""

    results: Path
    batch: Path
    full: RunSpec
    random: RunSpec
    best: RunSpec


@pytest.fixture
def theirs(tmp_path: Path) -> Theirs:
    store = new_store(tmp_path / "theirs")
    full = add_run(store, arm("full", **SAME), [1.0] * 12, answers=[HOSTILE] * 12)
    random = add_run(store, arm("random", **SAME), [1.0] * 5 + [0.0] * 7, full)
    best = add_run(store, arm("divprune", **SAME), [1.0] * 11 + [0.0], full, answers=[HOSTILE] * 11 + ["</script>"])
    results = tmp_path / "results"
    second = add_run(store, arm("random", seed=1, **SAME), [1.0] * 4 + [0.0] * 8, full)  # so theirs are more than ours
    return Theirs(results, submit(store, results, full, [random, best, second]), full, random, best)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    store = new_store(tmp_path / "ours")
    full = add_run(store, arm("full", **{**SAME, "code": "0" * 16}), [1.0] * 12)
    for method, right in (("random", 6), ("fastv", 9)):
        add_run(store, arm(method, **{**SAME, "code": "0" * 16}), [1.0] * right + [0.0] * (12 - right), full)
    return store.path


def ranking(shown: object) -> str:
    return next(text for text in texts(shown) if "<table>" in text)


def test_a_fresh_clone_shows_its_submissions(theirs: Theirs, tmp_path: Path):
    shown = page("overview", tmp_path / "none.duckdb", results=theirs.results)
    told = " ".join(texts(shown))
    assert "There is no store at" in told and "Self-reported: submitted by whoever ran it" in told
    assert "Best at 50%: divprune, RA 91.7 %" in told
    assert ranking(shown).count(">self-reported</span>") == 4 and 'title="batch a-batch"' in ranking(shown)
    assert not (tmp_path / "none.duckdb").exists()


def test_what_nobody_repeated_is_in_no_ranking_with_the_store(theirs: Theirs, ours: Path):
    shown = page("overview", ours, results=theirs.results)
    assert shown.selectbox[0].options == [GROUP, f"{GROUP} · self-reported"]
    assert ">fastv<" in ranking(shown) and ">divprune<" not in ranking(shown) and "provenance" not in ranking(shown)
    other = page("overview", ours, results=theirs.results, on=f"{GROUP} · self-reported")
    assert ">divprune<" in ranking(other) and ">fastv<" not in ranking(other)


def test_a_verified_run_is_ranked_beside_the_store_and_marked(theirs: Theirs, ours: Path):
    verify(theirs.batch, theirs.best)
    shown = page("overview", ours, results=theirs.results)
    table = ranking(shown)
    assert table.index(">divprune<") < table.index(">fastv<")
    assert '<span class="pill yes" title="batch a-batch">verified</span>' in table
    assert table.count(">verified</span>") == 1 and table.count(">local</span>") == 3
    assert "Best at 50%: divprune, RA 91.7 %" in " ".join(texts(shown))


def test_a_run_that_is_in_the_store_too_is_there_once(theirs: Theirs, tmp_path: Path):
    store = tmp_path / "theirs" / "store.duckdb"
    board = open_board(store, theirs.results)
    assert sorted(run["method"] for run in board.rows) == ["divprune", "full", "random", "random"]
    assert {run["provenance"] for run in board.rows} == {"local"}
    verify(theirs.batch, theirs.best)
    again = {run["method"]: run["provenance"] for run in open_board(store, theirs.results).rows}
    assert again == {"divprune": "verified", "full": "local", "random": "local"}


@pytest.mark.parametrize("name", ["pareto", "method", "compare", "samples", "latency", "profile"])
def test_every_page_opens_on_submissions_alone_with_their_answers_inert(theirs: Theirs, tmp_path: Path, name: str):
    shown = page(name, tmp_path / "none.duckdb", results=theirs.results)
    assert not [text for text in texts(shown) if "<img" in text or "</script>" in text]


def test_runs_of_the_store_and_submitted_ones_are_compared(theirs: Theirs, ours: Path):
    verify(theirs.batch, theirs.best)
    shown = page("compare", ours, results=theirs.results, a="fastv:50%", b="divprune:50%")
    assert dict(shown.dataframe[0].value.to_numpy().tolist())["questions that only B has right"] == "2"


def test_a_document_that_is_not_one_is_left_out_in_words(theirs: Theirs, ours: Path):
    (theirs.batch / f"{theirs.best.run_id}.json").write_text(f'{{"run_id": "{HOSTILE[:20]}"}}')
    shown = page("overview", ours, results=theirs.results)
    assert any("left out: a-batch/" in note.value.replace("\\", "") for note in shown.warning)
    assert ">fastv<" in ranking(shown)


def test_neither_store_nor_submission_says_how_to_begin(tmp_path: Path):
    (tmp_path / "results" / "submissions").mkdir(parents=True)
    shown = page("overview", tmp_path / "none.duckdb", results=tmp_path / "results")
    assert "nor a submission" in shown.info[0].value and "harness run" in shown.info[0].value


def test_the_site_holds_them_too(theirs: Theirs, tmp_path: Path):
    export(tmp_path / "none.duckdb", tmp_path / "site", theirs.results)
    index = (tmp_path / "site" / "index.html").read_text()
    assert ">self-reported</span>" in index
    for written in (tmp_path / "site").glob("*.html"):
        assert "<img" not in written.read_text()


def test_what_arrives_while_the_board_is_open_is_shown(theirs: Theirs, ours: Path):
    before = {run["run_id"] for run in open_board(ours, theirs.results).rows}
    late = add_run(new_store(ours.parent), arm("pact", **{**SAME, "code": "0" * 16}), [1.0] * 12)
    verify(theirs.batch, theirs.best)
    after = {run["run_id"]: run["provenance"] for run in open_board(ours, theirs.results).rows}
    assert after.keys() - before == {late.run_id} and after[theirs.best.run_id] == "verified"


def test_a_retired_run_is_not_shown_and_that_is_told(theirs: Theirs, tmp_path: Path):
    retire(theirs.batch, theirs.best)
    shown, told = opened(place_of(tmp_path / "none.duckdb", theirs.results))
    assert {row["method"] for row in shown.newest} == {"full", "random"}
    assert any("1 submitted runs are retired" in words for words in told)
