"""`harness export`: what page and tables say, that they need no network, and that no name becomes markup."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Sequence
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import Command, commands_in
from stored_runs import add_run, add_stopped, arm, new_store

from harness import report
from harness.records.errors import UnknownRun
from harness.records.figures import FAILED_BUDGET, INFEASIBLE, OK, REPORTED, STATUSES, Figures
from harness.report import Group, csv_table, latex_tables, markdown_tables, page
from harness.report.blocks import tag
from harness.report.ranking import STATUS_WORDS
from harness.store.database import Store
from harness.submissions.all_runs import all_runs

RIGHT = [1.0] * 60
NOW = datetime(2026, 11, 21, 12, 0)
TIMES = {
    "base_ms": {"vit": 10.0, "llm_prefill": 20.0, "residual": -0.1, "total": 30.0},
    "pruned_ms": {"vit": 10.0, "select": 4.0, "llm_prefill": 8.0, "residual": 0.2, "total": 22.2},
    "lr": 0.26,
    "lr_low": 0.2,
    "lr_high": 0.32,
    "indicative": True,
}
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def six_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On 60 questions: no pruning all right, random loses 30, good 6 (timed), bad 45, missed failed its budget,
    steep could not reach it."""
    made = new_store(tmp_path_factory.mktemp("six"))
    full = add_run(made, arm("full"), RIGHT)
    for method, lost in (("random", 30), ("good", 6), ("bad", 45)):
        times = TIMES if method == "good" else {}
        add_run(made, arm(method), [0.0] * lost + [1.0] * (60 - lost), full, **times)
    missed = "3 of 60 samples missed"
    add_run(made, arm("missed"), RIGHT, full, status=FAILED_BUDGET, message=missed)
    add_stopped(made, arm("steep"), Figures(INFEASIBLE, message="steep needs >= 36 tokens"))
    return made.path.parent


@pytest.fixture
def store(six_runs: Path, tmp_path: Path) -> Store:
    return new_store(shutil.copytree(six_runs, tmp_path, dirs_exist_ok=True))


@pytest.fixture
def harness(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return commands_in(tmp_path, monkeypatch, capsys)


class _Elements(HTMLParser):
    """Every element with its attributes, and every table as rows of texts."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name != "meta":
            self.open.append(name)
        if name == "tr":
            self.rows.append([])
        if name in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, name):
        assert self.open.pop() == name, "elements close in the order of their opening"

    def handle_data(self, text):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += text

    def row(self, first: str, columns: int = 0) -> list[str]:
        return next(row for row in self.rows if row[0] == first and len(row) >= columns)


def gather(store: Store, words: Sequence[str] = ()) -> list[Group]:
    return report.gather(all_runs(store, None, print), words)


def read(groups: Sequence[Group]) -> _Elements:
    return _Elements(page(groups, "store.duckdb", NOW))


def test_the_headline_by_hand(store: Store):
    """good: 54 of 60 right where random has 30: 24 gained and none lost, p = 2 / 2^24, the smaller of two."""
    (group,) = gather(store)
    lines = {line.name: line for line in group.lines}
    good = lines["good"]
    assert good.over_random.value == pytest.approx(0.4)
    assert good.p == pytest.approx(2 * 2 / 2**24)
    assert lines["bad"].p == pytest.approx(2 / 2**15)
    assert {name: line.beats_random for name, line in lines.items()} == {
        "full": "–", "random": "–", "good": "yes", "bad": "no, worse",
        "missed": "failed its budget",
    }  # fmt: skip
    assert (good.rank[0], lines["random"].rank[0], lines["bad"].rank[0]) == (1, 2, 3)
    assert lines["full"].rank is None and lines["missed"].rank is None
    assert (good.front, lines["full"].front) == (1.0, pytest.approx(1.0, abs=0.01))
    assert lines["bad"].front == 0.0


def test_no_pruning_comes_first_then_the_most_accurate(store: Store):
    assert [line.name for line in gather(store)[0].lines] == ["full", "missed", "good", "random", "bad"]


def test_the_page_ranks_each_budget_and_says_the_answer(store: Store):
    found = read(gather(store))
    header = found.row("rank")
    good = dict(zip(header, next(row for row in found.rows if row[1].endswith(" good")), strict=True))
    assert (good["rank"], good["accuracy, %"][:4], good["beats random"], good["tokens a layer"]) == (
        "1", "90.0", "yes", "32.0",
    )  # fmt: skip
    assert "Best at 50%: good, RA 90.0 %, ahead of every other method." in page(gather(store), "s", NOW)


def test_what_a_ranking_does_not_show_stands_in_the_details(store: Store):
    found = read(gather(store))
    row = dict(zip(found.row("method", 8), found.row("good", 8), strict=True))
    assert row["over random, points [95 %]"].startswith("+40.0 [")
    assert (row["on the front, %"], row["prefill pruned, ms"], row["notes"]) == ("100", "22.2", "indicative")


def test_columns_without_a_single_value_are_left_out(store: Store):
    assert "prefill pruned, ms" in page(gather(store), "s", NOW)
    assert "prefill pruned, ms" not in page(gather(store, ["bad"]), "s", NOW)


def test_cells_without_a_result_are_said_in_words(store: Store):
    found = read(gather(store))
    assert found.row("steep:50%") == ["steep:50%", "cannot reach the budget", "steep needs >= 36 tokens"]
    assert found.row("missed:50%") == ["missed:50%", "failed its budget", "3 of 60 samples missed"]


def test_the_page_tells_how_to_make_it_again(store: Store):
    text = page(gather(store), "s", NOW)
    assert "harness run --method good --budget 50% --model reference-a --benchmark reference-suite" in text
    assert "machine" in text and "r1" in text and "b1" in text


def test_the_page_asks_nothing_of_any_network(store: Store):
    text = page(gather(store), "s", NOW)
    assert not re.search(r"https?://|//cdn|url\(|@import", text)
    names = {name for name, _ in _Elements(text).elements}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form"})
    assert "default-src 'none'" in text


def test_every_element_is_closed(store: Store):
    assert read(gather(store)).open == []


def test_an_empty_store_is_said_in_words(tmp_path: Path):
    text = page(gather(new_store(tmp_path)), "s", NOW)
    assert "no runs yet" in text and "harness run" in text
    assert _Elements(text).open == []


def test_a_run_that_another_tool_reports_is_shown_and_never_ranked(store: Store):
    told = {"status": REPORTED, "realised_tokens": None, "flops_ratio": None}
    add_run(store, arm("elsewhere"), RIGHT, arm("full"), **told)
    (group,) = gather(store)
    line = next(line for line in group.lines if line.name == "elsewhere")
    assert (line.rank, line.front, line.beats_random) == (None, None, "–")
    found = read([group])
    assert found.row("elsewhere", 5)[-1] == "100" and "Self-reported: by other tools" in page([group], "s", NOW)


def test_every_status_has_its_words():
    assert {*STATUS_WORDS, OK} == set(STATUSES)


def test_a_store_with_failures_only_is_said_in_words(tmp_path: Path):
    store = new_store(tmp_path)
    add_stopped(store, arm("steep"), Figures(INFEASIBLE, message="the floor is 36"))
    text = page(gather(store), "s", NOW)
    assert "No run of this group has finished" in text and "the floor is 36" in text
    assert latex_tables(gather(store)) == "% no finished runs\n"


def test_a_hostile_name_stays_text(store: Store):
    add_run(store, arm(HOSTILE, model='m" onload="x'), RIGHT, arm("full"))
    text = page(gather(store), '"><script>', NOW)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert all("onload" not in attributes for _, attributes in _Elements(text).elements)
    assert "'<script>alert(1)</script>'" in text.replace("&lt;", "<").replace("&gt;", ">").replace("&#x27;", "'"), (
        "quoted for the shell in the command that makes the run again"
    )


def test_elements_escape_their_children_and_attributes():
    assert tag("p", "<&", None, class_='a"b', aria_label=1) == '<p class="a&quot;b" aria-label="1">&lt;&amp;</p>'


def test_runs_can_be_chosen_and_bring_their_controls(store: Store):
    (group,) = gather(store, ["good:50%"])
    assert [line.name for line in group.lines] == ["full", "good", "random"]
    with pytest.raises(UnknownRun, match="no run 'nothing'"):
        gather(store, ["nothing"])


def test_models_and_samples_are_apart(store: Store):
    add_run(store, arm("good", model="reference-b"), RIGHT, arm("full"))
    assert [len(group.lines) for group in gather(store)] == [5, 1]


def test_a_method_without_a_random_run_at_its_budget_is_not_judged(store: Store):
    add_run(store, arm("good", budget_value=0.25), RIGHT, arm("full"))
    line = next(line for line in gather(store)[0].lines if line.run["budget"] == "25%")
    assert (line.over_random, line.p, line.beats_random, line.rank) == (None, None, "–", (1, 1, 1))


def test_the_csv_has_units_bounds_and_plain_numbers(store: Store):
    add_run(store, arm("=cmd|x"), RIGHT, arm("full"))
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(csv_table(gather(store))))}
    good = rows["good"]
    assert (good["accuracy, %"], good["visual tokens a layer"], good["prefill pruned, ms"]) == ("90.0", "32.0", "22.2")
    assert float(good["accuracy, %, low"]) < 90 < float(good["accuracy, %, high"])
    assert rows["full"]["over random, points"] == "" == rows["bad"]["prefill pruned, ms"]
    assert "'=cmd|x" in rows, "no cell begins a formula"


def test_the_latex_table_is_escaped_and_aligned(store: Store):
    add_run(store, arm("a_b&c\\d"), RIGHT, arm("full"))
    text = latex_tables(gather(store))
    assert r"a\_b\&c\textbackslash{}d" in text and r"accuracy, \% [95 \%]" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {7}


def test_the_markdown_table_is_escaped_and_aligned(store: Store):
    add_run(store, arm("a|b<i>\n*c*"), RIGHT, arm("full"))
    title, _, *rows = markdown_tables(gather(store)).strip().splitlines()
    assert title == "## reference-a on reference-suite: 60 questions on 60 images"
    assert r"| a\|b\<i\> \*c\* | 50% | 32.0 | 100.0" in "\n".join(rows)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9}


@pytest.mark.parametrize(("format", "beginning"), [
    ("html", "<!doctype html>"), ("csv", "run_id,model,"), ("latex", "% reference-a on"), ("md", "## reference-a on"),
])  # fmt: skip
def test_the_command_writes_a_file_and_names_it(harness: Command, tmp_path: Path, format: str, beginning: str):
    (tmp_path / "none").mkdir()
    out = ("--out", str(tmp_path / "r"), "--results", str(tmp_path / "none"), "--json")
    said = harness("export", "--format", format, *out)
    assert said.code == 0 and "wrote" in said.err
    assert said.document == {"files": [str(tmp_path / "r")], "runs": 5}
    assert (tmp_path / "r").read_text("utf-8").startswith(beginning)


def test_a_file_that_cannot_be_written_is_said(harness: Command, tmp_path: Path):
    said = harness("export", "good", "--out", str(tmp_path / "no" / "r.html"))
    assert said.code == 3 and "give another --out" in said.complaint


def test_a_site_of_some_runs_is_refused(harness: Command):
    assert harness("export", "good", "--format", "site").code == 2
