"""The directions of imports, read from the source of every module. Nothing is imported here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("methods", "harness", "leaderboard")
LAZY = {"datasets", "duckdb", "streamlit", "ray", "plotly", "tensorboard", "fsspec", "pyarrow"}
HEAVY = {"torch", "transformers", "numpy", "pandas", "scipy", "PIL", "rich", "safetensors", *LAZY}


@dataclass(frozen=True)
class Import:
    """One import statement. module: dotted, as written; at_import: it runs when its file is imported."""

    where: str
    line: int
    module: str
    at_import: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.where}:{self.line} imports {self.module}"


class _Collector(ast.NodeVisitor):
    """Gathers imports; code under a function or under `if TYPE_CHECKING` does not run at import."""

    def __init__(self, where: str):
        self.where = where
        self.found: list[Import] = []
        self._later = 0

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, f"{self.where}:{node.lineno}: imports are absolute"
        assert node.module is not None
        inside = {path.stem for path in (ROOT / node.module.replace(".", "/")).glob("*")}
        for alias in node.names:  # `from harness.cli import run` names a module
            self._add(node, f"{node.module}.{alias.name}" if alias.name in inside else node.module)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._inside(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            self._inside(node)
        else:
            self.generic_visit(node)

    def _inside(self, node: ast.AST) -> None:
        self._later += 1
        self.generic_visit(node)
        self._later -= 1

    def _add(self, node: ast.stmt, module: str) -> None:
        self.found.append(Import(self.where, node.lineno, module, self._later == 0))


def imports_of(where: str, source: str) -> list[Import]:
    collector = _Collector(where)
    collector.visit(ast.parse(source))
    return collector.found


def imports(folder: str) -> Iterator[Import]:
    """Every import of every module under a folder or of one file, relative to the repository."""
    path = ROOT / folder
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        yield from imports_of(str(file.relative_to(ROOT)), file.read_text())


def offenders(folder: str, *allowed: str, at_import: bool = False) -> list[str]:
    """Imports of a folder that are neither of the standard library nor below one of the allowed modules."""
    return [
        str(found)
        for found in imports(folder)
        if found.top not in sys.stdlib_module_names
        and not any(found.module == name or found.module.startswith(name + ".") for name in allowed)
        and (found.at_import or not at_import)
    ]


def test_the_collector_sees_what_it_must():
    found = imports_of(
        "x.py",
        "import a.b\nfrom harness.benchmarks import embedded\ndef f():\n    import ray\n"
        "if TYPE_CHECKING:\n    import duckdb\nclass C:\n    import torch\n",
    )
    assert [(one.module, one.at_import) for one in found] == [
        ("a.b", True),
        ("harness.benchmarks.embedded", True),
        ("ray", False),
        ("duckdb", False),
        ("torch", True),
    ]


def test_methods_import_torch_and_themselves_only():
    assert offenders("methods", "torch", "methods") == []


# A room imports only rooms in front of it. `harness` stands for harness/__init__.py, whose names are looked up late.
ROOMS = (
    "methods", "records", "budget", "stats", "reference", "store", "models", "benchmarks", "flops", "validate",
    "request", "latency", "run", "report", "integrations", "sweep", "reference_training", "adapter_training",
    "submissions", "authoring", "doctor", "harness", "cli", "leaderboard",
)  # fmt: skip
LOOSE = {"__init__.py", "__main__.py", "doctor.py"}
MOST_ROOMS, MOST_ARROWS = 26, 140


def room_of(module: str) -> str:
    """The room of a dotted module of ours."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] or top if top == "harness" else top


def arrows() -> dict[tuple[str, str], list[str]]:
    """(importing room, imported room) -> the imports behind that arrow, those inside functions included."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in (one for package in PACKAGES for one in imports(package) if one.top in PACKAGES):
        here = room_of(one.where.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        if here != room_of(one.module):
            found.setdefault((here, room_of(one.module)), []).append(str(one))
    return found


def upward(found: dict[tuple[str, str], list[str]]) -> list[str]:
    """Imports of a room by one in front of it. Without any there is no circle."""
    return [line for (a, b), lines in found.items() if ROOMS.index(a) < ROOMS.index(b) for line in lines]


def test_an_import_upwards_is_seen():
    assert upward({("records", "cli"): ["x"], ("cli", "records"): ["y"]}) == ["x"]
    assert (
        room_of("harness") == "harness" and room_of("harness.cli.run") == "cli" and room_of("methods.base") == "methods"
    )


def test_rooms_import_downwards_only_and_few_others():
    found = arrows()
    assert upward(found) == []
    assert len(ROOMS) <= MOST_ROOMS and len(found) <= MOST_ARROWS, f"{len(ROOMS)} rooms, {len(found)} arrows"


def test_no_module_lies_loose_and_every_room_is_listed():
    entries = [path for path in (ROOT / "harness").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert {path.name for path in entries if path.is_file()} <= LOOSE
    rooms = {path.stem for path in entries if not path.stem.startswith("__")}
    assert rooms == set(ROOMS) - {"methods", "harness", "leaderboard"}


def test_no_public_name_is_a_room():
    import harness

    assert set(harness.__all__).isdisjoint(ROOMS)


@pytest.mark.parametrize("place", ["records", "budget/spec.py", "budget/__init__.py", "latency/__init__.py"])
def test_plain_values_need_the_standard_library_only(place: str):
    assert offenders(f"harness/{place}", "harness.records", at_import=True) == []


def test_benchmarks_need_no_torch():
    ours = ("harness.benchmarks", "harness.records", "harness.reference")
    allowed = (*ours, "PIL", "datasets", "fsspec", "pyarrow", "duckdb", "huggingface_hub")
    assert offenders("harness/benchmarks", *allowed) == []


def test_the_board_reads_results_only():
    forbidden = {"torch", "transformers", "methods"}
    assert [str(found) for found in imports("leaderboard") if found.top in forbidden] == []


def test_nothing_imports_the_board():
    folders = ("methods", "harness")
    assert [str(found) for folder in folders for found in imports(folder) if found.top == "leaderboard"] == []


def test_what_few_commands_need_is_imported_only_there():
    folders = ("methods", "harness")
    eager = [str(found) for folder in folders for found in imports(folder) if found.top in LAZY and found.at_import]
    assert [line for line in eager if not line.startswith("harness/store/database.py")] == []


def files_of(module: str) -> set[str]:
    """The files of ours that importing a dotted module runs, packages above it included."""
    parts = module.split(".")
    stems = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    names = {stem + ending for stem in stems for ending in (".py", "/__init__.py")}
    return {name for name in names if parts[0] in PACKAGES and (ROOT / name).is_file()}


def test_the_command_line_imports_nothing_heavy_before_a_command_runs():
    reached, waiting = set[str](), files_of("harness.cli")
    while waiting:
        file = waiting.pop()
        reached.add(file)
        for found in imports(file):
            if found.at_import:
                assert found.top not in HEAVY, str(found)
                waiting |= files_of(found.module) - reached
    assert {"harness/__init__.py", "harness/cli/run.py", "harness/records/errors.py"} <= reached
