"""The story of a run on the embedded model and a suite of eight questions."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.benchmarks.embedded import EmbeddedSuite, open_suite
from harness.budget.spec import BudgetSpec
from harness.latency.protocol import Protocol
from harness.models.loading import OpenModel
from harness.records.errors import CorruptLog, DiskFull, HarnessError, Interrupted
from harness.records.figures import FAILED_BUDGET, OK, PARTIAL
from harness.records.records import Record, Sample
from harness.request.opening import Bench, Cell, Sources, open_bench
from harness.request.request import Request
from harness.run.accuracy import Answer, pruned
from harness.run.comparison import Comparison, document
from harness.run.runner import run
from harness.store.database import Store
from harness.store.log_reader import read_log
from harness.store.log_writer import RunLog
from methods.base import BudgetInfeasible

SHORT = Protocol(pairs=2, warmup=1)


class Notes:
    """A watcher that remembers; after `interrupt_after` steps it presses Ctrl-C once."""

    def __init__(self, interrupt_after: int | None = None):
        self.passes: list[tuple[str, int, int]] = []
        self.steps = 0
        self._interrupt_after = interrupt_after

    def begins(self, title: str, total: int, done: int) -> None:
        self.passes.append((title, total, done))

    def advanced(self, steps: int = 1) -> None:
        self.steps += steps

    def ends(self) -> None:
        return None

    def stop(self) -> bool:
        return self._interrupt_after is not None and self.steps >= self._interrupt_after


@pytest.fixture
def sources(reference_a: OpenModel, suite_folder: Path) -> Sources:
    return Sources(
        model=lambda name, **settings: reference_a,
        benchmark=lambda name: open_suite(name, suite_folder, quick=name.endswith("quick")),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.duckdb", lock_timeout_s=0.2)


def request_of(method: str, budget: str = "50%", **others: Any) -> Request:
    return Request(method, BudgetSpec.parse(budget), benchmark="reference", **others)


@pytest.fixture
def go(store: Store, sources: Sources) -> Callable[..., Comparison]:
    def run_it(method: str, budget: str = "50%", watcher: Notes | None = None, **others: Any) -> Comparison:
        keys = {"timing", "force"} & others.keys()
        settings = {key: others.pop(key) for key in keys}
        watcher = watcher or Notes()
        return run(request_of(method, budget, **others), store, watcher, stop=watcher.stop, sources=sources, **settings)

    return run_it


def records_of(store: Store, run_id: str) -> list[Record]:
    contents = read_log(store.log_path(run_id))
    assert contents is not None
    return [dataclasses.replace(record, seconds=0.0) for record in contents.records.values()]


def test_a_method_is_run_after_no_pruning_and_random_and_told_beside_them(go, store: Store):
    notes = Notes()
    comparison = go("divprune", watcher=notes)
    assert notes.passes == [("unpruned", 8, 0), ("random at 50%", 8, 0), ("divprune at 50%", 8, 0)]
    assert comparison.random is not None
    assert [one.spec.method for one in (comparison.full, comparison.random, comparison.run)] == [
        "full", "random", "divprune",
    ]  # fmt: skip
    figures = comparison.run.figures
    assert (figures.status, figures.n, figures.errors) == (OK, 8, 0)
    assert (figures.full_tokens, figures.asked_tokens, figures.realised_tokens) == (12, 6, 6)
    assert figures.reference_run_id == comparison.full.spec.run_id
    assert comparison.run.entering == (6.0,) * 16
    assert set(store.runs()["run_id"]) == {
        one.spec.run_id for one in (comparison.full, comparison.random, comparison.run)
    }


def test_the_unpruned_run_is_its_own_measure(go):
    figures = go("full", "100%").run.figures
    assert (figures.realised_tokens, figures.flops_ratio, figures.visual_tokens_pruned_ratio) == (12, 1.0, 0.0)
    assert figures.full_accuracy == figures.accuracy


def test_half_the_tokens_cost_less_than_all_and_more_than_half_the_prefill(go):
    figures = go("random").run.figures
    assert figures.llm_flops_ratio is not None and 0.5 < figures.llm_flops_ratio < 0.8  # text tokens stay
    assert figures.flops_ratio is not None and figures.llm_flops_ratio < figures.flops_ratio < 1  # so does the ViT
    assert figures.visual_tokens_pruned_ratio == 0.5


def test_a_run_that_is_done_is_read_not_repeated(go, store: Store):
    first = go("grid")
    notes = Notes()
    again = go("grid", watcher=notes)
    assert notes.passes == []
    assert document(again) == document(first)


def test_force_redoes_the_asked_run_and_keeps_the_old_log_beside(go, store: Store):
    run_id = go("grid").run.spec.run_id
    notes = Notes()
    go("grid", watcher=notes, force=True)
    assert notes.passes == [("grid at 50%", 8, 0)]
    assert store.log_path(run_id).with_name(f"{run_id}.jsonl.aside-1").exists()


FREE = """
from dataclasses import dataclass
from methods.base import INTERFACE, Pruner, Selection

@dataclass(frozen=True)
class Free(Pruner):
    name = "free"
    hooks = (INTERFACE,)

    def at_interface(self, view):
        return Selection((view.hidden @ view.hidden.T).sum(dim=1).argsort()[: view.keep].sort().values)
"""


def test_a_cost_that_is_not_declared_is_told_once_and_changes_no_answer(
    store: Store, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file, notes = tmp_path / "free.py", list[str]()
    file.write_text(FREE)
    watched = partial(run, store=store, watcher=Notes(), sources=sources, told=notes.append)
    first = watched(request_of(str(file)))
    (note,) = notes
    assert "interface: declared 0 FLOPs, counted 36,864" in note  # 2 x 12 x 12 tokens x 128 wide
    assert "`selection_flops`" in note
    watched(request_of(str(file)))
    assert len(notes) == 1, "a run that is done is not counted again"
    told = records_of(store, first.run.spec.run_id)
    monkeypatch.setattr("harness.run.runner.cost_notes", lambda bench, cell: [])
    watched(request_of(str(file)), force=True)
    assert records_of(store, first.run.spec.run_id) == told and len(notes) == 1


def test_a_method_that_declares_its_cost_hears_nothing(store: Store, sources: Sources):
    notes = list[str]()
    run(request_of("divprune", limit=2), store, Notes(), sources=sources, told=notes.append)
    assert notes == []


def test_controls_are_shared_by_budgets_and_methods(go):
    go("divprune")
    notes = Notes()
    go("divprune", "25%", watcher=notes)
    assert [title for title, _, _ in notes.passes] == ["random at 25%", "divprune at 25%"]
    go("grid", watcher=(notes := Notes()))
    assert [title for title, _, _ in notes.passes] == ["grid at 50%"]


def test_the_first_interrupt_keeps_what_is_done_and_the_same_command_continues(go, store: Store):
    with pytest.raises(Interrupted, match="stopped after 3 of 8 samples of unpruned"):
        go("random", watcher=Notes(interrupt_after=3))
    assert list(store.runs()["status"]) == [PARTIAL]
    notes = Notes()
    comparison = go("random", watcher=notes)
    assert notes.passes[0] == ("unpruned", 8, 3)
    assert notes.steps == (8 - 3) + 8  # what is done is not done again
    resumed = records_of(store, comparison.run.spec.run_id), records_of(store, comparison.full.spec.run_id)
    for one in (comparison.full, comparison.run):
        store.log_path(one.spec.run_id).unlink()
    whole = go("random")
    assert (records_of(store, whole.run.spec.run_id), records_of(store, whole.full.spec.run_id)) == resumed


def test_an_interrupt_while_timing_keeps_every_answer(go, store: Store):
    class WhileTiming(Notes):
        def stop(self) -> bool:
            return bool(self.passes) and self.passes[-1][0].startswith("timing")

    with pytest.raises(Interrupted, match="while timing"):
        go("random", watcher=WhileTiming(), timing=SHORT)
    notes = Notes()
    figures = go("random", watcher=notes, timing=SHORT).run.figures
    assert notes.passes == [("timing random at 50%", 1, 0)]
    assert figures.lr is not None


def test_timing_can_be_added_to_a_run_that_has_none(go, store: Store):
    assert go("random").run.figures.lr is None
    notes = Notes()
    figures = go("random", watcher=notes, timing=SHORT).run.figures
    assert notes.passes == [("timing random at 50%", 1, 0)]
    assert figures.latency_clock == "perf_counter_ns" and figures.indicative is True
    assert {"vit", "projector", "select", "llm_prefill", "total", "preprocess"} <= figures.base_ms.keys()
    notes = Notes()
    assert go("random", watcher=notes, timing=SHORT).run.figures == figures
    assert notes.passes == []


def test_an_image_that_cannot_be_decoded_is_an_error_row_in_every_arm(go, store: Store, suite_folder: Path):
    (suite_folder / "images/2.png").write_bytes(b"torn")
    comparison = go("random")
    for one in (comparison.full, comparison.run):
        assert (one.figures.n, one.figures.errors, one.figures.status) == (8, 2, OK)
    bad = [record for record in records_of(store, comparison.run.spec.run_id) if record.error]
    assert [(record.sample_id, record.score) for record in bad] == [("read-2", 0.0), ("exist-2", 0.0)]
    assert "images/2.png" in (bad[0].error or "")
    assert comparison.run.figures.realised_tokens == 6


def test_an_infeasible_budget_stops_before_anything_runs(go, store: Store):
    notes = Notes()
    with pytest.raises(BudgetInfeasible, match="6 of 12"):  # the 8 layers before the cut see all 12 tokens
        go("fastv", "25%", watcher=notes, settings={"k": 16})
    assert notes.passes == [] and not store.log_folder.exists()


def test_a_run_that_misses_its_budget_is_said_to_have_failed(go, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.budget.spec.TOLERANCE_TOKENS", -1.0)  # nothing meets it
    figures = go("random").run.figures
    assert figures.status == FAILED_BUDGET
    assert "8 of 8 samples missed the budget, e.g. read-0: asked 6" in figures.message


def test_answers_depend_on_the_seed_but_not_on_order_or_limit(go, store: Store):
    def kept(comparison: Comparison) -> dict[str, Any]:
        return {record.sample_id: record.kept for record in records_of(store, comparison.run.spec.run_id)}

    whole, part, other = kept(go("random")), kept(go("random", limit=3)), kept(go("random", seed=1))
    assert part == {name: whole[name] for name in ("read-0", "exist-0", "read-1")}
    assert other != whole


def test_a_flops_budget_is_met_through_tokens(go):
    figures = go("random", "flops_ratio:0.95").run.figures
    assert figures.flops_ratio == pytest.approx(0.95, abs=0.02)  # a token is about 2 % here
    with pytest.raises(BudgetInfeasible, match=r"goes no lower than 0\.8"):
        go("random", "flops_ratio:0.2")


def test_a_native_run_has_no_asked_tokens_and_no_random_beside_it(go):
    comparison = go("fastv", "native")
    assert comparison.random is None and comparison.beats_random is None
    assert comparison.run.figures.asked_tokens is None and comparison.run.figures.status == OK


def test_a_method_that_contradicts_its_plan_stops_with_the_sample_named(go, tmp_path: Path):
    source = tmp_path / "greedy.py"
    source.write_text(
        "from dataclasses import dataclass\nimport torch\nfrom methods.base import INTERFACE, Pruner, Selection\n"
        "@dataclass(frozen=True)\nclass Greedy(Pruner):\n    name = 'greedy'\n    hooks = (INTERFACE,)\n"
        "    def at_interface(self, view):\n        return Selection(torch.arange(view.n))\n"
    )
    with pytest.raises(HarnessError, match="sample read-0: the plan asks for 6 of 12 rows, the selection leaves 12"):
        go(str(source))


def test_a_full_disk_loses_nothing(go, store: Store, monkeypatch: pytest.MonkeyPatch):
    append, room = RunLog.append, iter(range(3))

    def until_full(log: RunLog, *rows: Any) -> None:
        if next(room, None) is None:
            raise DiskFull("no space left; free some space, run again")
        append(log, *rows)

    monkeypatch.setattr(RunLog, "append", until_full)
    with pytest.raises(DiskFull):
        go("random")
    monkeypatch.setattr(RunLog, "append", append)
    notes = Notes()
    go("random", watcher=notes)
    assert notes.passes[0] == ("unpruned", 8, 3)


def test_a_log_with_a_damaged_middle_is_refused_until_forced(go, store: Store):
    run_id = go("random").run.spec.run_id
    log = store.log_path(run_id)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines[:3], lines[3].replace("read", "lead"), *lines[4:]]))
    with pytest.raises(CorruptLog, match="--force"):
        go("random")
    assert go("random", force=True).run.figures.status == OK


def test_the_document_has_what_was_promised_and_equals_the_store(go, store: Store):
    found = document(go("divprune", timing=SHORT))
    assert json.loads(json.dumps(found)) == found
    assert found["budget"] == {
        "asked": "50%", "kind": "layer_average", "asked_tokens": 6, "realised_tokens": 6, "full_tokens": 12,
    }  # fmt: skip
    assert {"value", "low", "high", "n", "full_value"} <= found["accuracy"].keys()
    assert {"vit", "projector", "select", "llm_prefill", "total"} <= found["latency"]["base_ms"].keys()
    assert {"vit", "projector", "select", "llm_prefill", "total"} <= found["latency"]["pruned_ms"].keys()
    row = store.run(found["run_id"])
    pairs = {
        "status": found["status"], "accuracy": found["accuracy"]["value"], "ra": found["ra"],
        "flops_ratio": found["flops_ratio"], "lr": found["latency"]["lr"], "base_ms": found["latency"]["base_ms"],
        "realised_tokens": found["budget"]["realised_tokens"],
    }  # fmt: skip
    assert {key: row[key] for key in pairs} == pairs
    timed = store.query("SELECT count(*) AS n FROM latencies WHERE run_id = ? AND stage = 'total'", [found["run_id"]])
    assert timed["n"][0] >= 4  # two pairs


def test_every_stage_of_a_record_is_in_the_store(go, store: Store):
    run_id = go("random").run.spec.run_id
    rows = store.query("SELECT sample_id, score, realised_tokens FROM samples WHERE run_id = ?", [run_id])
    assert sorted(rows["sample_id"]) == sorted(record.sample_id for record in records_of(store, run_id))
    assert set(rows["realised_tokens"]) == {6.0}


def test_a_wrong_method_or_benchmark_stops_before_weights_are_read(suite_folder: Path):
    def no_model(name: str, **settings: Any) -> OpenModel:
        raise AssertionError("the model was opened")

    sources = Sources(model=no_model, benchmark=partial(open_suite, folder=suite_folder, quick=False))
    with pytest.raises(Exception, match="no method 'nothing'"):
        open_bench(request_of("nothing"), sources)
    with pytest.raises(Exception, match="no setting 'depth'"):
        open_bench(request_of("divprune", settings={"depth": 1}), sources)


@dataclass(frozen=True)
class Late(EmbeddedSuite):
    """A benchmark that only a whole run can be judged by, and whose questions are answered in a way of its own."""

    scores: tuple[float | None, ...] = (None,) * 8

    @staticmethod
    @contextmanager
    def answerer(bench: Bench, cell: Cell) -> Iterator[Answer]:
        with pruned(bench, cell) as answer:
            yield lambda sample: replace(answer(sample), prediction="late")

    def score(self, prediction: str, sample: Sample) -> None: ...

    def judge(self, records: Mapping[str, Record], folder: Path) -> tuple[dict[str, Record], dict[str, float]]:
        found = zip(records.items(), self.scores, strict=True)
        return {name: replace(record, score=score) for (name, record), score in found}, {"f1": 0.5, "none": math.nan}

    def facts(self, model: OpenModel) -> Mapping[str, Any]:
        return {"tool": "late"}


@pytest.fixture
def late(sources: Sources, suite_folder: Path) -> Callable[..., Sources]:
    """Sources whose benchmarks are `Late`, "late:..." among them."""

    def of(*scores: float) -> Sources:
        known = vars(open_suite("late", suite_folder, quick=False))
        suite = Late(**known, **({"scores": scores} if scores else {}))
        return replace(sources, foreign={"late": lambda request: suite})

    return of


def late_run(store: Store, sources: Sources, method: str = "grid", **how: Any) -> Comparison:
    notes = Notes()
    return run(replace(request_of(method), benchmark="late:x"), store, notes, sources=sources, **how)


def test_a_run_without_scores_has_its_budget_and_metrics_and_no_accuracy(late, store: Store):
    told = late_run(store, late())
    row = store.run(told.run.spec.run_id)
    assert (row["status"], row["accuracy"], row["ra"], row["realised_tokens"]) == (OK, None, None, 6.0)
    assert row["metrics"] == {"f1": 0.5}
    assert store.query("SELECT score FROM samples")["score"].isna().all()
    assert told.over_random is None and told.run.accuracy_by_category == {}


def test_scores_that_only_the_whole_run_gives_stand_in_the_log_and_in_the_figures(late, store: Store):
    told = late_run(store, late(1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert told.run.figures.accuracy == told.full.figures.accuracy == 0.25 and told.over_random is not None
    records = read_log(store.log_path(told.run.spec.run_id)).records.values()
    assert [record.score for record in records] == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_a_benchmark_may_answer_in_a_way_of_its_own_and_the_log_has_what_it_tells(late, store: Store):
    told = late_run(store, late())
    contents = read_log(store.log_path(told.run.spec.run_id))
    assert {record.prediction for record in contents.records.values()} == {"late"}
    assert contents.sessions[0].environment.facts["tool"] == "late"
    assert contents.sessions[0].environment.facts["hardware"]


def test_the_blind_control_is_a_run_beside_the_unpruned_one(store: Store, sources: Sources):
    notes = Notes()
    told = run(request_of("full", "100%"), store, notes, unseen=True, sources=sources)
    assert notes.passes == [("unpruned", 8, 0), ("without images", 8, 0)]
    assert told.run.spec.benchmark == "reference:blind" and told.random is None
    assert told.run.figures.reference_run_id == told.full.spec.run_id
    assert {record.entering for record in records_of(store, told.run.spec.run_id)} == {(0,) * 16}


def test_a_request_has_one_identity_whatever_its_preset_is_called(sources: Sources):
    bench: Bench = open_bench(request_of("divprune"), sources)
    plain, preset = bench.cell(request_of("divprune")).spec, bench.cell(request_of("divprune:paper")).spec
    assert (plain.method, plain.preset) == ("divprune", "") and (preset.method, preset.preset) == ("divprune", "paper")
    assert plain.run_id != preset.run_id != bench.cell(request_of("divprune:paper", seed=1)).spec.run_id
    assert (
        bench.cell(request_of("divprune", "25%").control("full")).spec
        == bench.cell(request_of("grid").control("full")).spec
    )
