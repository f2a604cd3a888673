"""`harness bench` and the GPU table, on a tiny model of the same code path: rows, their file, what needs no package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command, commands_in
from tiny_catalogue import tiny_entry, write_entry

from harness.benchmarks.synthetic import SyntheticScene, benchmark_of
from harness.budget.spec import BudgetSpec
from harness.latency.statistics import summarise
from harness.latency.table import (
    Book,
    CellOutcome,
    LatencyCell,
    Stage,
    grid,
    published,
    read_table,
    rows_of_session,
    session_of,
    summary_of,
)
from harness.models import catalogue
from harness.records.records import LatencyRow, ResourceRow

ROOT = Path(__file__).resolve().parents[2]
TINY = "qwen3-vl-tiny"
QUICK = ("bench", "--model", TINY, "--random-weights", "--image-size", "128", "--text-tokens", "5", "--pairs", "2")


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    write_entry(tmp_path, tiny_entry())
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    monkeypatch.setattr("harness.latency.protocol.FEWEST_WARMUPS", 1)
    monkeypatch.setattr("harness.latency.protocol.MOST_WARMUPS", 1)
    return commands_in(tmp_path, monkeypatch, capsys)


def test_every_method_has_a_row_with_its_latency_and_flops_by_stage(harness: Command):
    said = harness(*QUICK, "--methods", "full,fastv,divprune,quietprune", "--json")
    assert said.code == 0
    rows = {row["method"]: row for row in said.document}
    assert list(rows) == ["full", "fastv", "divprune", "quietprune"]
    for row in rows.values():
        latency = row["latency"]
        assert row["status"] == "ok" and row["random_weights"] is True and "accuracy" not in row
        assert latency["low"] < latency["lr"] < latency["high"] and latency["indicative"] is True
        assert {"vit", "projector", "llm_prefill", "total"} <= set(latency["base_ms"])
        assert row["flops"]["base"]["total_flops"] == sum(list(row["flops"]["base"].values())[:-1])
        assert row["visual_tokens"] == 16 and row["model_revision"].startswith("random_weights:")
    assert rows["full"]["flops_ratio"] == 1.0 and rows["full"]["budget"] == "100%"
    assert rows["divprune"]["layer_average_tokens"] == rows["divprune"]["asked_tokens"] == 8
    assert rows["quietprune"]["preset"] == "init", "an untrained adapter has the shapes of a trained one"
    assert rows["quietprune"]["flops"]["pruned"]["vit_flops"] < rows["full"]["flops"]["base"]["vit_flops"]


def test_a_revision_and_an_image_backend_are_what_they_are_for_run(harness: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "unknown image backend 'gimp'" in harness(*QUICK, "--image-backend", "gimp").err
    assert "leave it out with --random-weights" in harness(*QUICK, "--revision", "v1").err
    unknown = harness("bench", "--model", "nobody/nothing", "--revision", "v1")
    assert unknown.code == 3 and "hf download nobody/nothing --revision v1" in unknown.err


def test_what_a_file_holds_is_not_measured_again(harness: Command, tmp_path: Path):
    out = tmp_path / "rows.json"
    words = (*QUICK, "--methods", "divprune", "--out", str(out))
    assert harness(*words, "--budget", "50%").code == 0
    [before] = read_table(out)["rows"]
    said = harness(*words, "--budget", "50%,25%")
    assert "1 sessions of 1 cells are left" in said.err
    same, new = read_table(out)["rows"]
    assert same == before and new["budget"] == "25%"
    assert harness(*words, "--budget", "50%", "--json").document[0]["latency"] == before["latency"]


def test_a_file_says_which_machine_and_code_and_holds_every_repetition(harness: Command, tmp_path: Path):
    out = tmp_path / "rows.json"
    harness(*QUICK, "--methods", "divprune", "--out", str(out))
    table = json.loads(out.read_text())
    [row] = table["rows"]
    assert table["protocol"] == "paired-v1" and table["machines"][row["machine_id"]]["hardware"]["cpu"]
    assert row["code"] and row["git_commit"]
    [session] = row["sessions"]
    timed = [arm for arm, ms in zip(session["arm"], session["ms"]["total"], strict=True) if ms is not None]
    assert timed.count("base") == timed.count("pruned") == 2
    assert row["latency"]["lr"] == pytest.approx(summarise(rows_of_session(session)[0]).lr)


def test_an_infeasible_budget_is_a_row_that_says_so(harness: Command):
    said = harness(*QUICK, "--methods", "fastv", "--budget", "5%", "--json")
    assert said.code == 0
    [row] = said.document
    assert row["status"] == "infeasible" and row["latency"] is None and "fastv needs" in row["message"]
    assert "infeasible: fastv needs" in said.err


def test_the_table_says_what_is_slower_in_words(harness: Command):
    said = harness(*QUICK, "--methods", "fastv,divprune")
    assert f"{TINY} · random weights · 128x128 px · sdpa · float32 · cpu" in said.out
    assert any(words in said.err for words in ("slower than no pruning", "no difference shown", "faster than"))
    assert "timed on a CPU" in said.err


@pytest.mark.proof  # three processes that import torch
def test_several_sessions_run_in_fresh_processes(tmp_path: Path):
    """As a user calls it: the model by a folder of its own, since a fresh process knows no patched catalogue."""
    out = tmp_path / "rows.json"
    words = ["--model", "reference-a", "--methods", "divprune", "--image-size", "64", "--pairs", "2"]
    main = "from harness.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", main, "bench", *words, "--sessions", "2", "--out", str(out)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [row] = read_table(out)["rows"]
    first, second = row["sessions"]
    assert first["session"] != second["session"]
    assert row["latency"]["interval"] == "sessions" and row["latency"]["sessions"] == 2
    assert row["random_weights"] is False


def test_a_session_survives_the_file():
    rows = [
        LatencyRow("s", "4x4+9", pair, arm, order, False, stage, float(10 * pair + order), "perf_counter_ns")
        for pair in (0, 1)
        for order, arm in enumerate(("base", "pruned"))
        for stage in ("total", "wall")
    ]
    resources = [ResourceRow("s", "base", "kv_cache_bytes", 64.0), ResourceRow("s", "base", "power_w/x", 9.0)]
    columns = json.loads(json.dumps(session_of([*rows, *resources], "2026-01-01T00:00:00Z")))
    timed, others = rows_of_session(columns)
    assert sorted(map(str, timed)) == sorted(map(str, rows))
    assert others == resources[:1], "what is read at every moment would fill the file"


def test_equal_arms_by_hand():
    rows = [
        LatencyRow("s", "1x1+1", pair, arm, order, False, "total", ms, "perf_counter_ns")
        for pair in range(3)
        for order, (arm, ms) in enumerate((("base", 100.0), ("pruned", 125.0)))
    ]
    work = [
        ResourceRow("s", arm, f"work_flops/{stage}/1x1+1", flops)
        for arm, flops in (("base", 4.0), ("pruned", 3.0))
        for stage in ("vit", "llm_prefill")
    ]
    found = summary_of([session_of([*rows, *work, ResourceRow("s", "base", "host_peak_rss_bytes", 5.0)], "now")])
    assert found["latency"]["lr"] == pytest.approx(-0.25) and found["verdict"] == "slower than no pruning"
    assert found["flops"]["base"] == {"vit_flops": 4.0, "llm_flops": 4.0, "total_flops": 8.0}
    assert found["flops_ratio"] == 0.75


def test_a_grid_has_no_pruning_once_and_a_row_keeps_apart_what_differs():
    stage = Stage("internvl3-1b", True, device="cpu")
    half, quarter = BudgetSpec.parse("50%"), BudgetSpec.parse("25%")
    cells = grid([stage], [SyntheticScene(448, 448)], ["full", "fastv"], [half, quarter])
    assert [(cell.method, str(cell.budget)) for cell in cells] == [
        ("full", "100%"), ("fastv", "50%"), ("fastv", "25%"),
    ]  # fmt: skip
    assert len({cell.key("here") for cell in cells} | {cells[0].key("there")}) == 4


def test_a_paper_stands_beside_a_row_as_a_reference():
    stage = Stage("internvl3-1b", True, device="cpu", attention="eager")
    cell = LatencyCell(stage, SyntheticScene(448, 448), "divprune", BudgetSpec.parse("50%"))
    row = Book(None, [cell]).add(CellOutcome(cell, "error", "out of memory", {}))
    assert (row["published"]["lr"], row["published"]["prefill_ms"]) == (-0.248, 156.0)
    assert "A100, eager" in row["published"]["source"] and "as quoted in reading notes" in row["published"]["source"]
    own = published("internvl3-1b", "quietprune", "50%")
    assert (own["lr"], own["prefill_ms"]) == (0.421, None)  # the digests give no prefill time of the paper's own method
    assert published("internvl3-1b", "divprune", "25%") is None
    assert published("internvl3-1b", "divprune", "interface_kept:50%") is None  # another budget


def test_a_scene_depends_on_its_seed_alone_and_has_no_answer():
    one, same, other = SyntheticScene(64, 32), SyntheticScene(64, 32), SyntheticScene(64, 32, seed=1)
    assert one.picture().tobytes() == same.picture().tobytes() != other.picture().tobytes()
    assert one.picture().size == (64, 32) and len(one.question("a b c").split()) == 40
    with pytest.raises(NotImplementedError, match="no right answer"):
        benchmark_of(one, "a b").score("a", benchmark_of(one, "a b").samples[0])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--preset", "tpu"), "gpu"),
        ((), "--random-weights"),
        (("--model", "reference-a", "--random-weights"), "no published model"),
        (("--model", TINY, "--random-weights", "--attention", "fast"), "eager"),
    ],
)
def test_a_wrong_word_is_a_usage_error(harness: Command, words: tuple[str, ...], complaint: str):
    said = harness("bench", *words)
    assert said.code == 2 and complaint in said.complaint


def test_a_model_that_is_not_cached_exits_3_with_the_command(harness: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = harness("bench", "--model", TINY, "--methods", "grid")
    assert said.code == 3 and "`hf download Qwen/Qwen3-VL-2B-Instruct`" in said.complaint


def test_when_the_time_is_up_it_says_what_is_left(harness: Command):
    words = ("--methods", "grid,divprune", "--minutes", "0.001")
    said = harness(*QUICK, *words, "--json")
    assert [row["method"] for row in said.document] == ["grid"] and "1 sessions are left" in said.err


def test_another_file_is_not_written_over(harness: Command, tmp_path: Path):
    (tmp_path / "notes.json").write_text('{"mine": 1}')
    said = harness(*QUICK, "--methods", "grid", "--out", str(tmp_path / "notes.json"))
    assert said.code == 2 and json.loads((tmp_path / "notes.json").read_text()) == {"mine": 1}


BARE = """
import sys
from importlib.machinery import PathFinder
class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = {"datasets", "duckdb", "streamlit", "pandas", "pyarrow", "scipy", "skimage", "sklearn", "plotly"}
        hidden |= {"ray", "platformdirs", "torchvision", "matplotlib", "tensorboard", "pynvml"}
        return None if name.partition(".")[0] in hidden else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Hiding if one is PathFinder else one for one in sys.meta_path]
sys.path.insert(0, sys.argv.pop(1))
from pathlib import Path
from harness.models import catalogue
catalogue.FOLDER = Path(sys.argv.pop(1))
import runpy
sys.argv[0] = "gpu_table.py"
runpy.run_path("benchmarks/gpu_table.py", run_name="__main__")
"""


def test_the_gpu_table_needs_few_packages(tmp_path: Path):
    """The script itself, on the CPU with a tiny model and fewer cells than its preset; a GPU has never run it here."""
    write_entry(tmp_path, tiny_entry())
    out = tmp_path / "rows.json"
    grid = f"--model {TINY} --device cpu --image-size 64 --methods quietprune"
    words = f"{grid} --pairs 1 --sessions 1 --json --out {out}".split()
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(ROOT), str(tmp_path), *words],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {(row["attention"], row["budget"]) for row in rows} == {
        (attention, budget) for attention in ("sdpa", "eager") for budget in ("50%", "25%")
    }
    assert len(read_table(out)["rows"]) == len(rows) == 4
