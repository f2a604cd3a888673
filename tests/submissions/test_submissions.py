"""Submissions: what is written, what is refused, what the board reads, and what a repetition finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from commands import Command, commands_over
from hand_submissions import GIT, Template, answered, forge, here, prepared, put, spec_of, submit

from harness.benchmarks.base import Benchmark
from harness.integrations.lmms_eval import opening as lmms_opening
from harness.models.loading import OpenModel
from harness.records.figures import Figures
from harness.records.provenance import GitState
from harness.records.run_spec import RunSpec
from harness.run import runner
from harness.store.database import Store
from harness.store.log_writer import RunLog
from harness.submissions import SAMPLE_COLUMNS, read
from harness.submissions.eligibility import choose
from harness.submissions.folder_checks import check_results
from harness.submissions.parquet import stream_runs, write_rows
from harness.submissions.rows import read_counts, rows_hash, spell_counts
from harness.submissions.safe_json import canonical, schema, violations
from harness.submissions.writing import write

DEMO = '''"""Keeps the longest tokens."""

from dataclasses import dataclass

from methods.base import INTERFACE, Pruner, Selection, View


@dataclass(frozen=True)
class Demo(Pruner):
    name = "demo"
    hooks = (INTERFACE,)

    def at_interface(self, view: View) -> Selection:
        return Selection(view.hidden.float().norm(dim=-1).topk(view.keep).indices.sort().values)
'''


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    with prepared(tmp_path_factory.mktemp("submitted")) as made:
        yield made


@pytest.fixture
def benchmark(template: Template) -> Benchmark:
    return template.benchmark


@pytest.fixture
def store(template: Template, tmp_path: Path) -> Store:
    return template.store_in(tmp_path)


@pytest.fixture
def results(template: Template, tmp_path: Path) -> Path:
    return template.results_in(tmp_path)


def problems(results: Path) -> list[str]:
    return [str(one) for one in check_results(results / "submissions").problems]


def test_a_run_is_submitted_with_its_controls_and_passes_every_check(results: Path):
    (batch,) = (results / "submissions").iterdir()
    found = check_results(results / "submissions")
    assert (found.runs, found.batches, list(found.problems)) == (4, 1, [])
    documents = [json.loads(path.read_text()) for path in batch.glob("*.json")]
    assert sorted(one["spec"]["method"] for one in documents) == ["divprune", "full", "random", "random"]
    own = next(one for one in documents if one["spec"]["method"] == "divprune")
    assert own["figures"]["accuracy"] == 7 / 8 and own["figures"]["realised_tokens"] == 6
    assert [one["accuracy_over_this"] for one in own["controls"]["random"]] == [3 / 8, 3 / 8]


def test_the_same_runs_give_the_same_bytes(store: Store, results: Path, tmp_path: Path):
    submit(store, tmp_path / "again", "divprune")
    first, second = (sorted(path.glob("submissions/*/*")) for path in (results, tmp_path / "again"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_was_submitted_is_neither_written_again_nor_repeated_as_a_control(
    store: Store, results: Path, benchmark: Benchmark
):
    chosen, _ = choose(store, ["divprune"])
    written, told = write(chosen, results / "submissions")
    assert written == [] and "is there already" in told[0]
    full = spec_of(benchmark, "full")
    put(store, benchmark, spec_of(benchmark, "grid"), [True] * 8, full)
    (grid,) = submit(store, results, "grid")
    assert [name for name, _ in grid.runs] == ["grid 50%"], "its controls lie in the first batch"
    assert problems(results) == []


def test_a_run_with_other_answers_never_replaces_a_submitted_one(results: Path, benchmark: Benchmark, tmp_path: Path):
    other = Store(tmp_path / "other" / "store.duckdb")
    put(other, benchmark, spec_of(benchmark, "full"), [False] + [True] * 7)
    chosen, _ = choose(other)
    with pytest.raises(Exception, match="with other answers"):
        write(chosen, results / "submissions")


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {  # changes of the spec, of how it is put, the reason
    "limited": ({"limit": 4}, {}, "without --limit"),
    "over its budget": ({}, {"status": "failed_budget"}, "failed its budget"),
    "infeasible": ({}, {"status": "infeasible", "message": "needs 20 tokens"}, "needs 20 tokens"),
    "stale": ({"code": "0" * 16}, {}, "is stale"),
    "of a file that is gone": ({"method": "./gone.py"}, {}, "is not here"),
    "with random weights": ({"model_revision": "random_weights:0"}, {}, "random weights"),
    "with a model of one's own": ({"model": "~/weights"}, {}, "run it by its hub id"),
    "without an image": ({"benchmark": "reference:blind"}, {}, "saw their images"),
    "from changed code": ({}, {"environment": here(git_dirty=True)}, "in no commit"),
    "without random runs": ({"budget_value": 0.25}, {}, "no random run at 25%"),
    "without an unpruned run": ({"dtype": "bfloat16"}, {}, "unpruned run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_run_is_refused_with_the_reason(case: str, store: Store, benchmark: Benchmark, tmp_path: Path):
    changes, how, why = REFUSED[case]
    run = replace(spec_of(benchmark, "grid"), **changes)
    put(store, benchmark, run, [True] * 8, spec_of(benchmark, "full"), **how)
    chosen, (refused,) = choose(store, [run.run_id])
    assert chosen == [] and why in refused.why


def test_a_model_of_no_known_family_is_not_taken_for_a_missing_method(store: Store, benchmark: Benchmark):
    run = replace(spec_of(benchmark, "grid"), model="org/finetune")
    put(store, benchmark, run, [True] * 8, spec_of(benchmark, "full"))
    _, (refused,) = choose(store, [run.run_id])
    assert "is not here" not in refused.why and "unpruned run" in refused.why


def test_a_run_that_went_on_at_a_later_commit_names_both(store: Store, results: Path, benchmark: Benchmark):
    run, later = spec_of(benchmark, "grid"), "f" * 40  # as when latency is measured a day after the answers
    put(store, benchmark, run, [True] * 8, spec_of(benchmark, "full"))
    with RunLog.open(store.log_path(run.run_id), run, here(git_commit=later)):
        pass
    store.ingest(store.log_path(run.run_id))
    (grid,) = submit(store, results, "grid")
    code = json.loads((grid.path / f"{run.run_id}.json").read_text())["code"]
    assert (code["commit"], code["later_commits"]) == (GIT["git_commit"], [later])
    assert problems(results) == []


def test_an_unfinished_run_is_refused(store: Store, benchmark: Benchmark):
    run = spec_of(benchmark, "grid")
    with RunLog.open(store.log_path(run.run_id), run, here()) as log:
        log.append(*answered(benchmark, 6, [True] * 8)[:3])
    store.ingest(store.log_path(run.run_id))
    _, (refused,) = choose(store, [run.run_id])
    assert "unfinished" in refused.why


def test_nothing_is_written_when_a_check_fails(store: Store, benchmark: Benchmark, tmp_path: Path):
    run = spec_of(benchmark, "grid")
    forged: Callable = lambda records: [replace(one, score=1.0) for one in records]  # noqa: E731
    put(store, benchmark, run, [False] * 8, spec_of(benchmark, "full"), change=forged)
    with pytest.raises(Exception, match="8 scores are not what the answers score"):
        write(choose(store, ["grid"])[0], tmp_path / "results" / "submissions")
    assert not (tmp_path / "results").exists() or list((tmp_path / "results").rglob("*")) == []


def test_the_board_reads_runs_and_samples_with_a_stores_columns(store: Store, results: Path):
    found, own = read(results), store.runs()
    assert set(found.runs.columns) == set(own.columns) | {"provenance", "batch"}
    merged = own.set_index("run_id").loc[[row["run_id"] for row in found.rows]]
    for name in ("cell_id", "accuracy", "ra", "flops_ratio", "budget", "machine_id", "stale", "realised_tokens"):
        assert list(merged[name]) == [row[name] for row in found.rows], name
    assert {row["provenance"] for row in found.rows} == {"self-reported"}
    columns = [name for name in SAMPLE_COLUMNS if name not in ("answer", "kept", "merged", "inference_time_s")]
    samples = store.query("FROM samples ORDER BY run_id, sample_id")
    assert set(SAMPLE_COLUMNS) == set(samples.columns)
    told = found.samples(columns=columns)
    for name in columns:
        assert [_plain(value) for value in told[name]] == [_plain(value) for value in samples[name]], name
    (one,) = {row["run_id"] for row in found.rows if row["method"] == "divprune"}
    assert len(found.samples([one])) == 8 and set(found.samples([one])["run_id"]) == {one}
    assert read(results / "nowhere").rows == [] and len(read(results / "nowhere").samples()) == 0


def test_a_file_that_cannot_be_read_is_left_out_and_that_is_told(results: Path):
    broken = next(results.glob("submissions/*/*.json"))
    broken.write_text("{")
    told: list[str] = []
    assert len(read(results, told.append).rows) == 3 and broken.name in told[0]


def test_rows_survive_the_file(tmp_path: Path, results: Path):
    (path,) = results.glob("submissions/*/samples.parquet")
    runs = dict(stream_runs(path))
    write_rows(tmp_path / "x.parquet", [row for rows in reversed(runs.values()) for row in rows])
    assert (tmp_path / "x.parquet").read_bytes() == path.read_bytes()
    for run_id, rows in stream_runs(path):
        document = json.loads((path.parent / f"{run_id}.json").read_text())
        assert rows_hash(rows) == document["samples"]["sha256"]
        assert rows_hash([{**rows[0], "score": 0.25}, *rows[1:]]) != document["samples"]["sha256"]


@pytest.mark.parametrize("counts", [(), (64,), (64, 64, 20), (3, 0, 0, 0, 3)])
def test_counts_by_layer_are_spelled_and_read(counts: tuple[int, ...]):
    assert read_counts(spell_counts(counts)) == counts
    assert spell_counts((64, 64, 20)) == "64*2 20"


def test_the_schema_names_every_field_and_is_a_json_schema(results: Path):
    rules = schema("submission")
    jsonschema.Draft202012Validator.check_schema(rules)
    assert set(rules["properties"]["spec"]["properties"]) == {one.name for one in fields(RunSpec)}
    assert set(rules["properties"]["figures"]["properties"]) == {one.name for one in fields(Figures)}
    judge = jsonschema.Draft202012Validator(rules)
    for path in results.glob("submissions/*/*.json"):
        document = json.loads(path.read_text())
        assert path.read_bytes() == canonical(document)
        for spoiled in ({}, {"run_id": "../x"}, {"samples": {"n": 0, "sha256": 1}}, {"extra": 1}, {"code": None}):
            judged = {**document, **spoiled}
            assert judge.is_valid(judged) == (not list(violations(judged, rules, rules))) == (not spoiled)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if value != value else value


@pytest.fixture
def harness(
    reference_a: OpenModel,
    suite_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """The command in an empty folder, as an installed package runs: no git, eight questions."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setattr(runner, "git_state", lambda: GitState(None, None))
    monkeypatch.setattr(lmms_opening, "open_model", lambda name, **settings: reference_a)
    return commands_over(suite_folder, tmp_path, monkeypatch, capsys)


def test_a_method_from_a_file_goes_from_an_empty_folder_onto_the_board(harness: Command, tmp_path: Path):
    Path("demo.py").write_text(DEMO)
    assert harness("run", "--method", "./demo.py", "--benchmark", "reference", "--no-timing").code == 0
    said = harness("submit", "./demo.py")
    assert said.code == 0, said.err
    assert "git add results/submissions/reference-a-reference-" in said.err and "./demo.py 50%" in said.out
    assert harness("validate", "results").code == 0
    own = next(row for row in read(Path("results")).rows if row["method"] == "./demo.py")
    document = json.loads((Path("results/submissions") / own["batch"] / f"{own['run_id']}.json").read_text())
    assert document["method"]["origin"] == "file" and document["code"] == {
        "commit": None,
        "dirty": None,
        "version": "0.1.0",
    }
    assert str(tmp_path) not in json.dumps(document)

    path = str(Path("results/submissions") / own["batch"] / f"{own['run_id']}.json")
    assert "--method PATH" in harness("verify", path).complaint
    said = harness("verify", str(Path(path).parent), "--method", "./demo.py", "--samples", "3")
    assert said.code == 0 and said.err.count("3 answers and 3 token counts of 3 are the same") == 3
    assert {row["provenance"] for row in read(Path("results")).rows} == {"verified"}

    forge(Path(path).parent, own["run_id"], entering_tokens="5*16", asked_tokens=5)
    said = harness("verify", path, "--method", "./demo.py", "--samples", "3")
    assert said.code == 1 and "stated 5*16 visual tokens a layer" in said.err and "NOT CONFIRMED" in said.err
    forge(Path(path).parent, own["run_id"], entering_tokens="6*16", asked_tokens=6, prediction="forged")
    said = harness("verify", path, "--method", "./demo.py", "--samples", "3", "--seed", "7")
    assert said.code == 1 and "0 answers and 3 token counts of 3" in said.err and "stated 'forged'" in said.err
    assert {row["run_id"]: row["provenance"] for row in read(Path("results")).rows}[own["run_id"]] == "self-reported"

    Path("demo.py").write_text(DEMO.replace("longest", "largest"))
    assert "is stale" not in harness("submit", "./demo.py").err, "a docstring is no code"
    Path("demo.py").write_text(DEMO.replace(".sort()", ".sort(stable=True)"))
    assert "is stale" in harness("submit", "./demo.py").err
    assert "is not the file that was run" in harness("verify", path, "--method", "./demo.py").complaint


def test_what_is_wrong_with_a_submission_is_told_and_exits_1(results: Path, harness: Command, benchmark: Benchmark):
    (batch,) = (results / "submissions").iterdir()
    said = harness("validate", str(batch), "--json")
    counted = {"batches": 1, "runs": 4, "retired": 0}
    assert said.code == 0 and said.document == {**counted, "problems": [], "notes": [UNTRACKED]}
    own = next(path for path in batch.glob("*.json") if '"divprune"' in path.read_text())
    forge(batch, own.stem, score=1.0)
    said = harness("validate", str(own), "--json")
    assert said.code == 1 and "scores are not what the answers score" in said.err
    assert {one["where"] for one in said.document["problems"]} == {batch.name, f"{batch.name}/{own.name}"}


UNTRACKED = "git does not know this folder: whether an earlier submission was edited cannot be told"


def test_submit_says_what_it_cannot_do(store: Store, benchmark: Benchmark, harness: Command, tmp_path: Path):
    put(store, benchmark, spec_of(benchmark, "grid", limit=4), [True] * 8, spec_of(benchmark, "full"))
    said = harness("submit", "grid", "--store", str(store.path))
    assert said.code == 1 and "refused: grid:50%" in said.err and "without --limit" in said.err
    assert "no run 'nothing'" in harness("submit", "nothing", "--store", str(store.path)).complaint
    assert "named submissions" in harness("submit", "divprune", "--store", str(store.path), "--out", "x").complaint
    assert not Path("results").exists()
    said = harness("submit", "--store", str(store.path), "--json")
    assert said.code == 0 and "refused: grid:50%" in said.err, "without words the others are submitted all the same"
    assert len(said.document[0]["runs"]) == 4
