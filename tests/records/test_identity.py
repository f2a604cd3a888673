"""A run's code identity changes with everything that can change an answer, and with nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from identity_probe import FAMILIES, executed

from harness.benchmarks.registry import declarations
from harness.models.families.registry import FAMILIES as FAMILY_NAMES
from harness.models.families.registry import module_of
from harness.records.provenance import (
    ACCURACY_PASS,
    benchmark_files,
    code_of,
    current_code,
    family_of,
    git_state,
    method_file,
    sample_ids_hash,
)
from harness.records.syntax import ROOT, closure, code_hash
from methods import names

Edit = Callable[[str], str]
FAMILY, ENGINE, RECORDS = "harness/models/families/llava.py", "harness/models/engine.py", "harness/records/records.py"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of our sources that can be edited."""
    for package in ("methods", "harness"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=_all_but_sources)
    return tmp_path


def _all_but_sources(folder: str, names: list[str]) -> list[str]:
    skipped = {"__pycache__", "suite", "reference_training", "validate"}
    return [one for one in names if one in skipped or ("." in one and not one.endswith((".py", ".json")))]


def code(checkout: Path, benchmark: str = "reference", method: str = "fastv") -> str:
    found = code_of(method, "llava", benchmark, checkout)
    assert found is not None
    return found


def edit(path: Path, change: Edit) -> None:
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


def test_comments_docstrings_layout_and_line_ends_change_nothing(checkout: Path):
    before = code(checkout)
    edit(checkout / ENGINE, lambda text: re.sub(r'^( *)"""(\w)', r'\1"""Said otherwise. \2', text, flags=re.M))
    edit(checkout / "methods/fastv.py", lambda text: text.replace("\n", "\r\n"))
    edit(checkout / RECORDS, lambda text: text.replace(": str\n", ":   str  # a name\n"))
    edit(checkout / FAMILY, lambda text: text.replace("\n    def ", "\n    # why\n\n    def "))
    assert code(checkout) == before


def test_imports_for_the_type_checker_and_their_order_change_nothing(checkout: Path):
    before = code(checkout)
    unused = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from harness.latency import clock\n"
    edit(checkout / ENGINE, lambda text: text.replace("from harness.models.trace import Trace\n", ""))
    assert code(checkout) != before
    edit(
        checkout / ENGINE,
        lambda text: text.replace("import torch\n", "from harness.models.trace import Trace\nimport torch\n"),
    )
    assert code(checkout) == before
    reference = checkout / "harness/benchmarks/embedded.py"
    edit(reference, lambda text: text.replace("import json\n", "import json\nfrom typing import TYPE_CHECKING\n"))
    typed = code(checkout)
    edit(reference, lambda text: text.replace("MAX_NEW", unused.partition("\n")[2] + "MAX_NEW", 1))
    assert code(checkout) == typed


NOT_REACHED = (
    "harness/models/families/internvl.py", "harness/benchmarks/tables.py", "harness/benchmarks/papers/pope.py",
    "harness/benchmarks/own.py", "harness/latency/clock.py", "harness/store/log_writer.py", "harness/run/runner.py",
    "harness/request/opening.py", "harness/records/run_spec.py", "harness/records/provenance.py", "harness/cli/run.py",
    "harness/models/registry.py", "harness/models/catalogue.py", "harness/models/prune.py", "methods/divprune.py",
    "methods/registry.py", "harness/models/families/registry.py", "harness/benchmarks/registry.py",
)  # fmt: skip
REACHED = (
    "methods/fastv.py", "methods/base.py", "methods/ops.py", "methods/selection.py", FAMILY, ENGINE, RECORDS,
    "harness/models/families/cls_tower.py", "harness/models/loading.py", "harness/models/processors.py",
    "harness/benchmarks/embedded.py", "harness/benchmarks/scoring/text.py", "harness/budget/planning.py", ACCURACY_PASS,
    "harness/flops/planned.py",
)  # fmt: skip


def test_an_edit_of_what_is_not_reached_changes_nothing(checkout: Path):
    before = code(checkout)
    for name in NOT_REACHED:
        edit(checkout / name, lambda text: text + "\nTOUCHED = 1\n")
    assert code(checkout) == before
    assert not any(file.is_relative_to(ROOT / "leaderboard") for file in closure([ROOT / ACCURACY_PASS]))


@pytest.mark.parametrize("name", REACHED)
def test_an_edit_of_anything_reached_changes_it(checkout: Path, name: str):
    before = code(checkout)
    edit(checkout / name, lambda text: text + "\nTOUCHED = 1\n")
    assert code(checkout) != before


def test_an_edit_of_the_hub_readers_changes_published_benchmarks_alone(checkout: Path):
    reference, pope, own = (code(checkout, name) for name in ("reference", "pope", "mine.jsonl"))
    edit(checkout / "harness/benchmarks/tables.py", lambda text: text + "\nTOUCHED = 1\n")
    assert (code(checkout), code(checkout, "mine.jsonl")) == (reference, own) and code(checkout, "pope") != pope


def test_a_moved_file_changes_nothing(checkout: Path):
    before = code(checkout)
    (checkout / "harness/models/rows.py").rename(checkout / "harness/budget/patch_rows.py")
    (checkout / "methods/ops.py").rename(checkout / "methods/maths.py")
    for path in checkout.rglob("*.py"):
        text = path.read_text()
        moved = text.replace("harness.models.rows", "harness.budget.patch_rows").replace("methods.ops", "methods.maths")
        path.write_text("\n".join(sorted(moved.split("\n"), key=_imports_of_ours_first)) if moved != text else text)
    assert code(checkout) == before


def _imports_of_ours_first(line: str) -> bool:
    """As a sorter of imports may do after a move."""
    return not line.startswith("from __future__")


def test_an_import_inside_a_function_counts_and_another_name_does(checkout: Path):
    before = code(checkout)
    edit(checkout / "methods/fastv.py", lambda text: text + "\n\ndef f():\n    from methods.captured import Captured\n")
    after = code(checkout)
    edit(checkout / "methods/captured.py", lambda text: text + "\nTOUCHED = 1\n")
    reached = code(checkout)
    edit(checkout / "methods/fastv.py", lambda text: text.replace("import Captured", "import GRAPHS"))
    assert len({before, after, reached, code(checkout)}) == 4


def test_what_lies_beside_a_users_file_counts_where_it_is_imported(checkout: Path):
    (checkout / "mine").mkdir()
    method, helper, other = (checkout / "mine" / f"{name}.py" for name in ("demo", "helper", "other"))
    method.write_text("import torch\nfrom helper import f\nfrom methods.base import Pruner\n")
    helper.write_text("f = 1\n")
    other.write_text("g = 1\n")
    before = code(checkout, method=str(method))
    other.write_text("g = 22\n")
    assert code(checkout, method=str(method)) == before
    helper.write_text("f = 22\n")
    changed = code(checkout, method=str(method))
    helper.write_text("import other\nf = 22\n")
    assert len({before, changed, code(checkout, method=str(method))}) == 3


def test_a_plugins_package_counts_and_what_is_installed_beside_it_does_not(tmp_path: Path):
    place = tmp_path / "site-packages"
    for name, text in (("mine/__init__.py", ""), ("mine/ops.py", "f = 1\n"), ("torch/__init__.py", "x = 1\n"),
                       ("mine/demo.py", "import torch\nfrom mine.ops import f\nfrom . import ops\n")):  # fmt: skip
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    assert closure([place / "mine/demo.py"]) == {place / "mine/demo.py", place / "mine/ops.py"}
    (place / "alone.py").write_text("import torch\n")
    assert closure([place / "alone.py"]) == {place / "alone.py"}


def test_a_method_is_found_by_name_and_by_path_and_its_place_does_not_count(checkout: Path, monkeypatch):
    monkeypatch.chdir(checkout)
    assert method_file("fastv", checkout) == checkout / "methods" / "fastv.py"
    assert method_file("./methods/fastv.py:FastV", checkout) == Path("methods/fastv.py")
    before = code(checkout)
    (checkout / "methods/fastv.py").rename(checkout / "moved.py")
    assert code(checkout, method="./moved.py") == before
    assert method_file("fastv", checkout) is None and code_of("fastv", "llava", "reference", checkout) is None


def test_what_cannot_be_told_is_none(checkout: Path, tmp_path: Path):
    (tmp_path / "torn.py").write_text("def (")
    assert code_of(str(tmp_path / "torn.py"), "llava", "reference", checkout) is None
    for family in ("gpt", "../../methods/base", ""):
        assert code_of("fastv", family, "reference", checkout) is None
    for model in ("owner/unknown", "~nobody-of-that-name/x", "reference-z", "\0", str(tmp_path)):
        assert current_code("fastv", model, "reference") is None


def test_the_family_is_known_without_opening_the_model(tmp_path: Path):
    published = {"qwen3-vl-4b": "qwen3_vl", "Qwen/Qwen3-VL-4B-Instruct@abc": "qwen3_vl", "llava-1.5-7b": "llava"}
    for model, family in {"reference-a": "qwen3_vl", "reference-b": "llava", **published}.items():
        assert family_of(model) == family
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl"}))
    assert family_of(str(tmp_path)) == "internvl" and current_code("fastv", str(tmp_path), "pope") is not None
    assert all((ROOT / f"{module_of(family).replace('.', '/')}.py").is_file() for family in FAMILY_NAMES)


def test_every_published_benchmark_is_traced_to_its_declaration():
    for name, declaration in declarations().items():
        module = declaration.read.__module__.rpartition(".")[2]
        found = {path.stem for path in benchmark_files(name)}
        assert {"declared", module} <= found and len(found) <= 3, name
    assert [path.stem for path in benchmark_files("reference-quick:blind")] == ["embedded"]
    assert [path.stem for path in benchmark_files("folder-of-mine")] == ["own"]
    assert [path.stem for path in benchmark_files("scene-448px")] == ["synthetic"]
    assert benchmark_files("lmms:mme@0.7.2") == []


def test_no_registry_is_walked_through():
    for method in names():
        files = [ROOT / f"methods/{method}.py", ROOT / ACCURACY_PASS, *benchmark_files("reference")]
        assert not [file for file in closure(files) if file.name == "registry.py"]
        assert not [file for file in closure(files) if "papers" in file.parts or ("families" in file.parts[:-1]
                    and file.stem in FAMILY_NAMES)]  # fmt: skip


def test_the_hash_is_of_the_set_of_modules(tmp_path: Path):
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("x = 1\n")
    second.write_text("y = 1\n")
    assert code_hash([first, second]) == code_hash([second, first]) != code_hash([first])


OPENS = {  # executed and yet in no identity
    "harness/request/opening.py": "opens: names, and cells of what is open",
    "harness/request/request.py": "words of the command into the identity itself",
    "harness/request/options.py": "words of the command, checked; what answering takes of them is in the identity",
    "harness/records/provenance.py": "the identity", "harness/records/syntax.py": "the identity",
    "harness/models/registry.py": "name -> folder or hub id; the revision is in the identity",
    "harness/models/catalogue.py": "short name -> hub id",
    "harness/models/families/registry.py": "name -> class", "harness/benchmarks/registry.py": "name -> benchmark",
    "methods/registry.py": "name -> class",
}  # fmt: skip


@pytest.mark.proof
@pytest.mark.parametrize("family", FAMILIES)
def test_every_module_that_an_accuracy_pass_executes_is_in_the_identity(family: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, ROOT / "tests/identity_probe.py", family, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {run["benchmark"] for run in found} == {"reference", "pope"} and len({run["method"] for run in found}) >= 4
    for run in found:
        own = ROOT / f"harness/models/families/{family}.py"
        files = [own, ROOT / ACCURACY_PASS, *benchmark_files(run["benchmark"])]
        reached = {_name(file) for file in closure([ROOT / f"methods/{run['method']}.py", *files])}
        assert ENGINE in run["executed"] and _name(own) in reached
        assert set(run["executed"]) - reached - OPENS.keys() == set(), (run["method"], run["benchmark"])


def _name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_the_probe_sees_a_function_run():
    with executed(ROOT) as seen:
        family_of("reference-a")
    assert seen == {"harness/records/provenance.py", "harness/records/syntax.py"}


def test_sample_ids_count_in_order_and_do_not_run_together():
    assert sample_ids_hash(["a", "b"]) == sample_ids_hash(iter(["a", "b"]))
    assert len({sample_ids_hash(ids) for ids in ([], ["a", "b"], ["b", "a"], ["ab"], ["a\nb"], ["a", "", "b"])}) == 6


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True).stdout


def test_git_state_outside_a_repository_or_without_git_is_unknown(monkeypatch, tmp_path: Path):
    assert (git_state(tmp_path).commit, git_state(tmp_path).dirty) == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state().commit is None


def test_git_state_names_the_commit_and_sees_changes(tmp_path: Path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "someone else's")
    assert git_state(tmp_path).commit is None, "a repository that does not track us says nothing about us"
    _touch(tmp_path / RECORDS)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "ours")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert git_state(tmp_path).commit == commit and git_state(tmp_path).dirty is False
    _touch(tmp_path / "results/new.json")
    assert git_state(tmp_path).dirty is False, "a result is no code"
    _touch(tmp_path / "new.py")
    assert git_state(tmp_path).dirty is True


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
