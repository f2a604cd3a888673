"""Runs of lmms-eval's tasks: its evaluator, tasks and model classes with our pruners, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

import checkpoints
import datasets
from commands import Command, commands_in
from lmms_eval.api.task import ConfigurableTask
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager
from lmms_tasks import plain_rows, pope, suite_rows

from harness.budget.spec import BudgetSpec
from harness.integrations.lmms_eval.opening import members, open_task
from harness.integrations.lmms_eval.tasks import Task, answering, open_tasks
from harness.integrations.lmms_eval.wrapped import open_wrapped
from harness.models.loading import OpenModel
from harness.records.errors import BenchmarkUnavailable, EnvironmentProblem, Interrupted, UnknownBenchmark, UsageError
from harness.request.opening import Bench, Sources
from harness.request.request import Request
from harness.run.comparison import Comparison
from harness.run.runner import Story, environment, run
from harness.store.database import Store
from harness.store.log_reader import read_log
from harness.store.shards import Shard
from methods.base import BudgetInfeasible

pytestmark = pytest.mark.proof
ROWS = 8
PLAIN = {"dtype": "float32", "device": "cpu", "attention": "sdpa"}
BARE = "lmms_eval_specific_kwargs: {default: {pre_prompt: '', post_prompt: ''}}\n"  # as the embedded model was taught
SHORT = "generation_kwargs: {max_new_tokens: 6}\n"  # a model that knows nothing does not know when to stop
THEIR_PROMPT = "\nAnswer the question using a single word or phrase."


@dataclass
class Notes:
    """A watcher that counts answers, and asks to stop after so many."""

    answers: int = 0
    stop_after: int | None = None
    titles: list[str] = field(default_factory=list)

    def begins(self, title: str, total: int, done: int) -> None:
        self.titles.append(f"{title}: {total - done}")

    def advanced(self, steps: int = 1) -> None:
        self.answers += steps

    def ends(self) -> None: ...

    def stop(self) -> bool:
        return self.stop_after is not None and self.answers >= self.stop_after


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(place / "cache"))
        pope(place, suite_rows(ROWS))
        pope(place, suite_rows(ROWS), "pope_bare", BARE)
        pope(place, plain_rows(4), "pope_plain", SHORT)
        yield place


@pytest.fixture(scope="module")
def manager(folder: Path) -> TaskManager:
    return TaskManager("ERROR", include_path=[str(folder)], include_defaults=False, model_name="qwen3_vl")


def task_of(manager: TaskManager, name: str = "pope_bare", **how: Any) -> Task:
    [task] = open_tasks(manager, name, **{"prompts": "qwen3_vl", "is_simple": False, "limit": None, **how})
    return task


def request_of(method: str, budget: str = "50%", **more: Any) -> Request:
    return Request(method, BudgetSpec.parse(budget), **more)


@dataclass
class Runs:
    """Runs of tasks on one model into one store."""

    model: OpenModel
    store: Store
    notes: Notes

    def run(self, task: Task, request: Request, **how: Any) -> Comparison:
        sources = Sources(model=lambda name, **settings: self.model, foreign={"lmms": lambda request: task})
        request = replace(request, benchmark="lmms:any")
        return run(request, self.store, self.notes, stop=self.notes.stop, sources=sources, **how)


@pytest.fixture
def runs_of(tmp_path: Path, reference_a: OpenModel) -> Callable[..., Runs]:
    return lambda notes, model=None: Runs(model or reference_a, Store(tmp_path / "store.duckdb"), notes)


@pytest.mark.parametrize(("name", "suffix"), [("pope_local", THEIR_PROMPT), ("pope_bare", "")])
def test_their_pope_at_all_tokens_answers_as_native_generate_does(
    manager: TaskManager, runs_of, reference_a: OpenModel, name: str, suffix: str
):
    runs = runs_of(Notes())
    told = runs.run(task_of(manager, name), request_of("full", "100%"))
    records = read_log(runs.store.log_path(told.run.spec.run_id)).records
    for number, row in enumerate(suite_rows(ROWS)):
        prompt = reference_a.processed([row["image"].convert("RGB")], row["question"].strip() + suffix)
        native = reference_a.model.generate(**prompt, max_new_tokens=128, do_sample=False)
        answer = reference_a.decode(native[0, prompt["input_ids"].shape[1] :])
        assert records[f"test:{number}"].prediction == answer
        assert records[f"test:{number}"].entering == (records[f"test:{number}"].full_tokens,) * 16
    assert told.run.spec.benchmark == f"lmms:{name}@0.7.3"


def test_at_half_the_tokens_every_sample_has_its_measured_budget_in_the_store(manager: TaskManager, runs_of):
    runs = runs_of(Notes())
    model = runs.model.model
    for method in ("fastv", "divprune"):
        told = runs.run(task_of(manager), request_of(method))
        assert (told.run.figures.status, told.run.figures.n, told.run.figures.errors) == ("ok", ROWS, 0)
        rows = runs.store.query("FROM samples WHERE run_id = ? ORDER BY sample_id", [told.run.spec.run_id]).to_dict(
            "records"
        )
        assert {row["full_tokens"] for row in rows} == {24, 64}  # pictures of 192 x 128 and of 256 x 256
        for row in rows:
            assert row["asked_tokens"] == row["full_tokens"] / 2
            assert abs(fmean(row["entering"]) - row["asked_tokens"]) <= 1
            assert row["prediction"] and row["score"] == (row["prediction"].lower() == row["answer"])
            assert row["prefill_flops"]["total"] > 0
        assert len({row["cluster"] for row in rows}) < ROWS  # questions about one picture are one cluster
        assert told.run.figures.metrics["pope_accuracy"] == told.run.figures.accuracy == fmean(r["score"] for r in rows)
        assert told.run.figures.metrics["pope_yes_ratio"] == 5 / 8
        assert told.full.figures.accuracy >= 7 / 8 and told.random is not None
    assert len(runs.store.runs()) == 4  # two methods, and the controls once
    assert runs.model.model is model and sum(1 for _ in model.parameters()) > 100


def test_a_budget_that_cannot_be_reached_stops_before_anything_is_asked(manager: TaskManager, runs_of):
    notes = Notes()
    with pytest.raises(BudgetInfeasible, match="fastv"):
        runs_of(notes).run(task_of(manager), request_of("fastv", "1%"))
    assert (notes.answers, notes.titles) == (0, [])


def test_what_is_done_is_not_asked_again(manager: TaskManager, runs_of):
    first, again = Notes(), Notes()
    told = runs_of(first).run(task_of(manager), request_of("fastv"))
    assert first.answers == 3 * ROWS
    assert runs_of(again).run(task_of(manager), request_of("fastv")) == told
    assert (again.answers, again.titles) == (0, [])


def test_a_run_that_was_stopped_goes_on_where_it_was(manager: TaskManager, runs_of, tmp_path: Path):
    with pytest.raises(Interrupted, match="stopped after 5 of 8 samples of unpruned; nothing is lost"):
        runs_of(Notes(stop_after=5)).run(task_of(manager), request_of("full", "100%"))
    [log] = (tmp_path / "store.runs").glob("*.jsonl")
    assert [record.score for record in read_log(log).records.values()] == [None] * 5
    assert list(Store(tmp_path / "store.duckdb").runs()["status"]) == ["partial"]
    rest = Notes()
    told = runs_of(rest).run(task_of(manager), request_of("full", "100%"))
    assert (rest.answers, rest.titles) == (3, ["unpruned: 3"])
    assert (told.run.figures.n, told.run.figures.status) == (ROWS, "ok")
    assert None not in [record.score for record in read_log(log).records.values()]


KILLED = """
import os, signal, sys
import test_lmms_tasks as tests
from harness.models.loading import open_model

class Deadly(tests.Notes):
    def advanced(self, steps=1):
        super().advanced(steps)
        if self.answers == 5:
            os.kill(os.getpid(), signal.SIGKILL)

folder, store = sys.argv[1:]
manager = tests.TaskManager("ERROR", include_path=[folder], include_defaults=False, model_name="qwen3_vl")
runs = tests.Runs(open_model("reference-a"), tests.Store(store), Deadly())
runs.run(tests.task_of(manager), tests.request_of("full", "100%"))
"""


def test_a_run_that_was_killed_goes_on_and_ends_as_one_that_was_not(
    manager: TaskManager, runs_of, folder: Path, tmp_path: Path
):
    words = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "store.duckdb")]
    places = [str(Path(__file__).parents[up]) for up in (0, 1, 2)]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    assert subprocess.run(words, env=here, capture_output=True, check=False).returncode == -9
    [log] = (tmp_path / "store.runs").glob("*.jsonl")
    assert len(read_log(log).records) == 5
    rest = Notes()
    told = runs_of(rest).run(task_of(manager), request_of("full", "100%"))
    assert rest.answers == ROWS - 5
    (tmp_path / "whole").mkdir()
    runs = replace(runs_of(Notes()), store=Store(tmp_path / "whole/store.duckdb"))
    whole = runs.run(task_of(manager), request_of("full", "100%"))
    assert whole.run.spec == told.run.spec and whole.run.figures.metrics == told.run.figures.metrics
    one, other = (read_log(place).records.values() for place in (log, runs.store.log_path(told.run.spec.run_id)))
    assert [replace(record, seconds=0) for record in one] == [replace(record, seconds=0) for record in other]


def test_a_crash_at_the_sixth_sample_keeps_five(
    manager: TaskManager, runs_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    task = task_of(manager)
    native = task.theirs.doc_to_messages

    def torn(doc: Any) -> Any:
        if doc["question_id"] == "5":
            raise OSError("image file is truncated")
        return native(doc)

    monkeypatch.setattr(task.theirs, "doc_to_messages", torn)
    with pytest.raises(OSError, match="truncated"):
        runs_of(Notes()).run(replace(task, opened=lambda: task.theirs), request_of("full", "100%"))
    [log] = (tmp_path / "store.runs").glob("*.jsonl")
    assert len(read_log(log).records) == 5


TALLY = """
from lmms_eval.tasks._task_utils.file_utils import generate_submission_file
from lmms_eval.tasks.pope.utils import pope_doc_to_text, pope_doc_to_visual, pope_process_results
ALL = []

def share(results, args):
    ALL.extend(result["score"] for result in results)
    with open(generate_submission_file("answers.txt", args), "w") as file:
        file.write(str(len(ALL)))
    return sum(ALL) / len(results)
"""


def test_scoring_that_keeps_counts_in_its_module_sees_one_run_and_writes_beside_its_log(
    manager: TaskManager, runs_of, folder: Path
):
    place = pope(
        folder / "tally",
        suite_rows(4),
        "tally",
        f"metric_list: [{{metric: acc, aggregation: !function "
        f"tally.share, higher_is_better: true}}]\nprocess_results: !function tally.score\n{BARE}",
    )
    (place / "tally.py").write_text(
        TALLY + "\ndef score(doc, results):\n    return {'acc': pope_process_results(doc, results)['pope_accuracy']}\n"
    )
    other = TaskManager("ERROR", include_path=[str(place)], include_defaults=False, model_name="qwen3_vl")
    runs = runs_of(Notes())
    told = runs.run(task_of(other, "tally"), request_of("divprune"))
    assert told.full.figures.accuracy == told.full.figures.metrics["acc"] == 0.75
    assert told.run.figures.accuracy == told.run.figures.metrics["acc"]
    for name in runs.store.runs()["run_id"]:
        assert (runs.store.log_folder / name / "submissions/answers.txt").read_text() == "4"


def test_a_group_is_its_tasks_as_it_asks_them(folder: Path, runs_of):
    place = pope(folder / "group", suite_rows(2), "one", BARE)
    pope(place, suite_rows(3), "two", BARE)
    (place / "both.yaml").write_text(
        "group: both\ntask:\n  - one\n  - task: two\n    generation_kwargs: {max_new_tokens: 1}\n"
    )
    other = TaskManager("ERROR", include_path=[str(place)], include_defaults=False, model_name="qwen3_vl")
    tasks = {
        task.their_name: task for task in open_tasks(other, "both", prompts="qwen3_vl", is_simple=False, limit=None)
    }
    assert {name: len(task.samples) for name, task in tasks.items()} == {"one": 2, "two": 3}
    assert tasks["one"].revision == task_of(other, "one").revision
    assert tasks["two"].revision != task_of(other, "two").revision
    runs = runs_of(Notes())
    records = [
        read_log(runs.store.log_path(runs.run(task, request_of("full", "100%")).run.spec.run_id)).records
        for task in tasks.values()
    ]
    assert [len(found) for found in records] == [len(task.samples) for task in tasks.values()]
    assert tasks["two"].opened().config.generation_kwargs["max_new_tokens"] == 1


def test_what_may_guess_or_ask_a_judge_is_flagged(folder: Path, manager: TaskManager):
    assert task_of(manager).flags == ()
    place = pope(folder / "guess", plain_rows(2), "guess", "process_results: !function guess.score\n")
    (place / "guess.py").write_text("import random\n\ndef score(doc, results):\n    return random.choice(results)\n")
    other = TaskManager("ERROR", include_path=[str(place)], include_defaults=False, model_name="qwen3_vl")
    assert task_of(other, "guess").flags == ("random_fallback",)


METHOD = """
from dataclasses import dataclass
import torch
from methods.base import INTERFACE, Pruner, Selection

@dataclass(frozen=True)
class Edge(Pruner):
    name = "edge"
    title = "Keeps one end of the picture"
    hooks = (INTERFACE,)

    def at_interface(self, view):
        rows = torch.arange(view.n)
        return Selection(rows[: view.keep] if FIRST else rows[-view.keep :])
"""


def method_file(folder: Path, first: bool) -> str:
    path = folder / "edge.py"
    path.write_text(METHOD.replace("FIRST", str(first)))
    return str(path)


def test_a_changed_method_file_is_never_answered_from_a_log(manager: TaskManager, runs_of, tmp_path: Path):
    task = task_of(manager)
    one = runs_of(Notes()).run(task, request_of(method_file(tmp_path, True), "25%"))
    notes = Notes()
    runs = runs_of(notes)
    other = runs.run(task, request_of(method_file(tmp_path, False), "25%"))
    assert notes.answers == ROWS  # the controls are answered from their logs, the method is not
    kept = [
        read_log(runs.store.log_path(told.run.spec.run_id)).records["test:1"].kept["interface"] for told in (one, other)
    ]
    assert kept == [format((1 << 16) - 1, "x"), format(((1 << 16) - 1) << 48, "x")]
    assert one.run.spec.cell_id == other.run.spec.cell_id and one.run.spec.run_id != other.run.spec.run_id


def test_their_command_line_finds_us_and_a_changed_method_is_refused(
    manager: TaskManager, folder: Path, tmp_path: Path
):
    kind = get_model("pruned")
    args = f"method={method_file(tmp_path, True)},budget=25%,device=cpu"
    with pytest.raises(UsageError, match=r"spec is missing: .* add spec=r[0-9a-f]{16} to model_args") as told:
        kind.create_from_arg_string(args)
    args += f",spec={str(told.value).split('spec=')[1].split()[0]}"
    results = simple_evaluate(
        model="pruned", model_args=args, tasks=[task_of(manager).theirs], task_manager=manager, batch_size=1,
        bootstrap_iters=0, limit=2, cli_args=None,
    )  # fmt: skip
    [first, second] = results["samples"]["pope_bare"]
    assert 0 < first["token_counts"][0]["input_tokens"] < second["token_counts"][0]["input_tokens"] < 64
    method_file(tmp_path, False)
    with pytest.raises(UsageError, match="spec has changed"):
        kind.create_from_arg_string(args)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llava(tmp_path_factory.mktemp("tiny") / "llava")


@pytest.fixture
def llava_hf(tiny: Path) -> Any:
    pytest.importorskip("decord")
    return open_wrapped(str(tiny), "llava_hf", **PLAIN)


def test_their_class_at_all_tokens_answers_as_it_does_unwrapped(manager: TaskManager, runs_of, tiny: Path, llava_hf):
    runs = runs_of(Notes(), llava_hf)
    told = runs.run(task_of(manager, "pope_plain"), request_of("full", "100%", model=str(tiny)))
    theirs = get_model("llava_hf")(pretrained=str(tiny), device="cpu", device_map="cpu", dtype="float32")
    results = simple_evaluate(
        model=theirs, tasks=[task_of(manager, "pope_plain").theirs], task_manager=manager, bootstrap_iters=0,
        cli_args=None,
    )  # fmt: skip
    answers = [row["filtered_resps"][0] for row in results["samples"]["pope_plain"]]
    records = read_log(runs.store.log_path(told.run.spec.run_id)).records.values()
    assert [record.prediction for record in records] == answers and len(set(answers)) > 1
    assert {record.entering for record in records} == {(36,) * 6}
    assert told.run.spec.image_backend == "lmms-eval:llava_hf"


def test_a_class_that_does_not_exist_or_does_not_work_here_is_named(tiny: Path):
    with pytest.raises(UsageError, match="has no model class 'llava_hff'"):
        open_wrapped(str(tiny), "llava_hff", **PLAIN)
    if find_spec("torchvision") is None:
        with pytest.raises(EnvironmentProblem, match=r"qwen3_vl does not work here: .*Torchvision"):
            open_wrapped("reference-a", "qwen3_vl", **PLAIN)


def test_their_class_under_a_pruner_keeps_a_quarter_and_is_given_back(
    manager: TaskManager, runs_of, tiny: Path, llava_hf
):
    runs = runs_of(Notes(), llava_hf)
    for method in ("random", "divprune"):
        told = runs.run(task_of(manager, "pope_plain"), request_of(method, "25%", model=str(tiny)))
        records = read_log(runs.store.log_path(told.run.spec.run_id)).records.values()
        assert {record.entering for record in records} == {(9,) * 6} and told.run.figures.status == "ok"
        assert {(record.full_tokens, record.asked_tokens) for record in records} == {(36, 9)}
    assert "generate" not in vars(llava_hf.inner.model)


def test_what_their_class_swallows_is_raised(manager: TaskManager, runs_of, tiny: Path, llava_hf, tmp_path: Path):
    path = tmp_path / "edge.py"
    path.write_text(METHOD.replace("FIRST", "1 / 0"))
    request = request_of(str(path), "25%", model=str(tiny))
    with pytest.raises(ZeroDivisionError):
        runs_of(Notes(), llava_hf).run(task_of(manager, "pope_plain"), request)


def test_tasks_that_are_unknown_or_of_another_kind_are_named(manager: TaskManager, folder: Path):
    with pytest.raises(UnknownBenchmark, match="no task 'pope_lokal'; nearest: pope_local"):
        task_of(manager, "pope_lokal")
    pope(folder / "more", plain_rows(2), "choices", "output_type: multiple_choice\ndoc_to_choice: ['yes', 'no']\n")
    other = TaskManager("ERROR", include_path=[str(folder / "more")], include_defaults=False)
    with pytest.raises(UsageError, match="choices is of the kind multiple_choice"):
        task_of(other, "choices")


def test_what_a_task_lacks_is_named(folder: Path, manager: TaskManager, monkeypatch: pytest.MonkeyPatch):
    place = pope(folder / "lacking", plain_rows(2), "lacking", "process_results: !function lacking.score\n")
    (place / "lacking.py").write_text("import no_such_package\n")
    other = TaskManager("ERROR", include_path=[str(place)], include_defaults=False)
    with pytest.raises(EnvironmentProblem, match=r"lacking imports what is not here .*no_such_package"):
        task_of(other, "lacking")

    def offline(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    monkeypatch.setattr(ConfigurableTask.download.retry, "sleep", lambda seconds: None)
    with pytest.raises(BenchmarkUnavailable, match=r"data of pope_bare are neither .* \(no network\)"):
        task_of(manager)


def test_a_benchmarks_revision_changes_with_rows_prompt_and_limit_and_not_with_its_place(
    manager: TaskManager, folder: Path
):
    def revision(name: str = "moved", rows: int = ROWS, more: str = BARE, prompt_as: str = "qwen3_vl") -> str:
        place = pope(folder / f"place{len(list(folder.iterdir()))}", suite_rows(rows), name, more)
        managers = TaskManager("ERROR", include_path=[str(place)], include_defaults=False, model_name=prompt_as)
        return task_of(managers, name).revision

    base = revision()
    assert revision() == base
    assert len({base, revision(rows=ROWS - 1), revision(more=""), revision(more="", prompt_as="plm")}) == 4
    assert task_of(manager, limit=3).revision != task_of(manager).revision


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return commands_in(tmp_path, monkeypatch, capsys)


def test_a_task_in_a_folder_runs_and_sweeps_as_any_benchmark(harness: Command, folder: Path):
    words = ("--limit", "2", "--no-timing", "--json")
    run = harness("run", "--benchmark", f"lmms:{folder}/pope_bare", "--method", "fastv", *words).document
    assert (run["benchmark"], run["status"], run["accuracy"]["n"]) == ("lmms:pope_bare@0.7.3", "ok", 2)
    assert "pope_f1_score" in run["metrics"] and run["controls"]["random"] is not None
    assert harness("show", run["run_id"], "--json").document["accuracy"] == run["accuracy"]["value"]
    swept = harness("sweep", "--benchmarks", f"lmms:{folder}/pope_bare", "--methods", "fastv,divprune",
                    "--budgets", "50%", "--no-controls", *words)  # fmt: skip
    assert swept.code == 0, swept.err
    ids = {row["name"] for row in harness("list", "runs", "--json").document}
    assert run["run_id"] in ids and len(ids) == 4  # full, random and fastv once, divprune


def test_a_group_in_a_command_is_a_run_for_each_of_its_tasks(harness: Command, folder: Path):
    place = pope(folder / "pair", suite_rows(2), "left", BARE)
    pope(place, suite_rows(3), "right", BARE)
    (place / "pair.yaml").write_text("group: pair\ntask: [left, right]\n")
    said = harness("run", "--benchmark", f"lmms:{place}/pair", "--method", "full", "--no-timing", "--json")
    runs = said.document["runs"]
    assert [(one["benchmark"], one["accuracy"]["n"]) for one in runs] == [
        ("lmms:left@0.7.3", 2), ("lmms:right@0.7.3", 3),
    ]  # fmt: skip
    assert said.code == 0


def test_prompts_of_another_model_are_part_of_a_benchmarks_name(folder: Path):
    def name(words: str) -> str:
        return open_task(request_of("full", "100%", benchmark=f"lmms:{folder}/pope_local{words}")).name

    assert (name(""), name(":plm")) == ("lmms:pope_local@0.7.3", "lmms:pope_local:plm@0.7.3")
    with pytest.raises(UsageError, match="cannot be asked of lmms-eval's own class"):
        request = request_of("fastv", "flops_ratio:0.5", benchmark="lmms:pope", image_backend="lmms-eval:llava_hf")
        members(request)


def test_a_task_can_be_timed_in_a_process_of_its_own(harness: Command, folder: Path):
    words = ("--limit", "2", "--pairs", "2", "--sessions", "2", "--json")
    run = harness("run", "--benchmark", f"lmms:{folder}/pope_bare", "--method", "divprune", *words).document
    assert run["latency"]["sessions"] == 2 and run["latency"]["lr"] is not None


def test_a_run_in_shards_is_the_run_that_was_not(manager: TaskManager, runs_of, tmp_path: Path):
    whole = runs_of(Notes()).run(task_of(manager), request_of("random"))
    runs = replace(runs_of(Notes()), store=Store(tmp_path / "shared/store.duckdb"))
    bench = Bench(runs.model, task_of(manager), task_of(manager).samples)
    story = Story(bench, runs.store, runs.notes, runs.notes.stop, environment())
    cell = bench.cell(replace(request_of("random"), benchmark="lmms:any"))
    full = story.reach(bench.cell(cell.request.control("full")), answering)
    for index in (2, 0, 1):
        story.answer_shard(cell, answering, Shard(index, 3))
    found = story.reach(cell, answering, full)
    assert found.spec == whole.run.spec and found.figures.metrics == whole.run.figures.metrics
    others = read_log(runs_of(Notes()).store.log_path(found.spec.run_id)).records
    assert {n: replace(one, seconds=0) for n, one in found.records.items()} == {
        n: replace(one, seconds=0) for n, one in others.items()
    }
