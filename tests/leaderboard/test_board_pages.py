"""The board's pages, run without a browser: defaults, filters, URLs, and stores that are empty, torn or busy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("plotly")
from boards import HOSTILE, QUICK, page, small_store, texts
from filelock import FileLock
from stored_runs import add_run, add_stopped, arm, new_store

from harness.records.figures import REPORTED, Figures

PAGES = ("overview", "pareto", "method", "compare", "samples", "latency")
WITHOUT_RUNS = ("profile", "published", "submit")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("board"))


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_with_defaults_and_puts_them_into_the_url(store: Path, name: str):
    shown = page(name, store)
    assert shown.selectbox[0].value == "reference-a · reference-quick · 12 questions"
    assert shown.query_params["on"] == shown.selectbox[0].value


@pytest.mark.parametrize("name", PAGES)
def test_a_hostile_url_means_the_defaults(store: Path, name: str):
    filters = ("on", "budget", "cost", "method", "a", "b", "run", "which", "sample", "machine", "timed")
    plain, attacked = page(name, store), page(name, store, **dict.fromkeys(filters, HOSTILE))
    assert [box.value for box in attacked.selectbox] == [box.value for box in plain.selectbox]
    assert not [text for text in texts(attacked) if "alert(1)" in text]


def test_the_ranking_names_the_best_method_its_ties_and_what_beats_it(store: Path):
    shown = page("overview", store)
    assert "Best at 50%: divprune, RA 100.0 %, ahead of every other method." in texts(shown)
    table = next(text for text in texts(shown) if "<table>" in text)
    assert table.index(">divprune<") < table.index(">random<") < table.index(">fastv<")


def test_a_budget_in_the_url_is_shown(store: Path):
    assert "Best at 25%: divprune" in " ".join(texts(page("overview", store, budget="25%")))


def test_what_is_not_ranked_stands_apart(store: Path):
    shown = page("overview", store)
    ranked = next(text for text in texts(shown) if "<table>" in text)
    apart = {str(cell) for table in shown.dataframe for cell in table.value.to_numpy().ravel()}
    for run in ("pact:25%", "tome:50%"):
        assert run in apart
        assert f">{run.partition(':')[0]}<" not in ranked


def test_what_another_tool_reported_is_listed_once_and_apart(tmp_path: Path):
    made = new_store(tmp_path)
    full = add_run(made, arm("full", **QUICK), [1.0] * 4)
    add_run(made, arm("fastv", **QUICK), [1.0, 0.0, 1.0, 0.0], full)
    add_stopped(made, arm("lmms-eval", **QUICK), Figures(REPORTED, n=4, accuracy=0.5))
    (reported,) = page("overview", made.path).dataframe
    assert reported.value.to_numpy().tolist() == [["lmms-eval", "reference-a", "reference-quick", 4, 50.0]]


@pytest.mark.parametrize("cost", ["visual tokens", "FLOPs", "latency"])
def test_each_cost_has_its_chart(store: Path, cost: str):
    assert len(page("pareto", store, cost=cost).get("plotly_chart")) == 1


def test_runs_of_one_name_are_told_apart_by_their_ids(tmp_path: Path):
    made = new_store(tmp_path)
    full = add_run(made, arm("full", **QUICK), [1.0] * 4)
    for seed in (0, 1):
        add_run(made, arm("random", seed=seed, **QUICK), [1.0, 0.0, float(seed), 0.0], full)
    options = page("compare", made.path).selectbox(key="pick:a").options
    assert len(set(options)) == 3 and sum(one.startswith("random:50% · ") for one in options) == 2


def test_two_runs_are_compared_question_by_question(store: Path):
    shown = page("compare", store, a="full", b="fastv:50%")
    told = dict(shown.dataframe[0].value.to_numpy().tolist())
    assert told["questions that only A has right"] == "9"
    assert told["questions that only B has right"] == "0"
    assert len(shown.dataframe[1].value) == 9
    assert len(page("compare", store, a="fastv:50%", b="full").dataframe[1].value) == 9


def test_only_what_pruning_lost_is_listed(store: Path):
    shown = page("samples", store, run="fastv:50%", which="lost by pruning")
    assert len(shown.selectbox(key="pick:sample").options) == 9


def test_a_slower_method_is_named(store: Path):
    assert any("Slower than no pruning: fastv 50% (-20.0 %)" in text for text in texts(page("latency", store)))


@pytest.mark.parametrize("name", PAGES)
def test_a_store_that_is_not_there_is_told_and_not_made(tmp_path: Path, name: str):
    shown = page(name, tmp_path / "none.duckdb")
    assert "there is no store" in shown.info[0].value.replace("\\", "")
    assert not list(tmp_path.iterdir())


def test_a_store_without_runs_says_how_to_make_one(tmp_path: Path):
    from harness.store.database import Store

    Store(tmp_path / "x.duckdb").rebuild()
    assert "holds no runs yet" in page("overview", tmp_path / "x.duckdb").info[0].value


def test_a_torn_database_is_rebuilt_from_its_logs_and_that_is_told(store: Path, tmp_path: Path):
    path = Path(shutil.copytree(store.parent, tmp_path / "copy")) / store.name
    path.write_bytes(path.read_bytes()[:5000])
    shown = page("overview", path)
    assert "rebuilt from" in shown.warning[0].value.replace("\\", "")
    assert "Best at 50%: divprune" in " ".join(texts(shown))


def test_a_busy_store_is_told_in_words(store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("leaderboard.sources.LOCK_TIMEOUT_S", 0.05)
    monkeypatch.setattr("leaderboard.sources.stamp_of", lambda files: (1, 1, 1))  # nothing is cached under this stamp
    with FileLock(f"{store}.lock"):
        assert "in use by another process" in page("overview", store).info[0].value.replace("\\", "")


@pytest.mark.parametrize("name", WITHOUT_RUNS)
def test_pages_that_need_no_run_open_without_a_store(tmp_path: Path, name: str):
    hostile = dict.fromkeys(("profile", "paper-method", "paper-model"), HOSTILE)
    assert texts(page(name, tmp_path / "none.duckdb", **hostile))


def test_printed_numbers_can_be_narrowed_to_a_method(tmp_path: Path):
    shown = page("published", tmp_path / "none.duckdb", **{"paper-method": "quietprune"})
    tables = next(text for text in texts(shown) if "<details" in text)
    assert "<span>quietprune</span>" in tables and "<span>fastv</span>" not in tables
    assert "<sup>a</sup>" in tables and "Hardware: A100" in tables
    with_baseline = texts(page("published", tmp_path / "none.duckdb", **{"paper-method": "vprune"}))
    assert any(">no pruning<" in text and "88.27" in text and ">fastv<" not in text for text in with_baseline)
    everything = next(text for text in texts(page("published", tmp_path / "none.duckdb")) if "<details" in text)
    assert everything.count("<details>") > 30
    assert everything.count("<details open") == 1


def test_the_commands_that_the_submit_page_names_exist(tmp_path: Path):
    from harness.cli import app

    known = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    lines = [line for code in page("submit", tmp_path / "none.duckdb").code for line in code.value.splitlines()]
    assert {line.split()[1] for line in lines} <= known
