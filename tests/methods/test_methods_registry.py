"""Where methods come from: this project, a path, or an installed package; and what is said where names clash."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Command, commands_in

import methods
from harness.records.provenance import current_code, method_file
from methods.base import UnknownMethod

METHOD = """
from __future__ import annotations
from dataclasses import dataclass
from methods.base import INTERFACE, Pruner, Selection
from methods.ops import top_k

@dataclass(frozen=True)
class Mine(Pruner):
    name = "NAME"
    hooks = (INTERFACE,)
    ratio: float = 0.5

    def at_interface(self, view):
        return Selection(top_k(view.hidden.float().norm(dim=1), view.n if view.keep is None else view.keep))
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lays down a distribution with one method: install("pack", "norms") -> the file of the method."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def lay(package: str, name: str, text: str = METHOD, target: str = "") -> Path:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('imported')" if "boom" in text else "")
        module = tmp_path / package / "mine.py"
        module.write_text(text.replace("NAME", name))
        facts = tmp_path / f"{package}-1.2.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (facts / "entry_points.txt").write_text(
            f"[visual_token_pruners]\n{name} = {target or f'{package}.mine:Mine'}\n"
        )
        return module

    yield lay
    for module in [module for module in sys.modules if module.startswith(("pack", "rival"))]:
        del sys.modules[module]


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return commands_in(tmp_path, monkeypatch, capsys)


def test_a_file_with_postponed_annotations_and_settings_is_a_method(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(METHOD)
    assert methods.build(str(path), ratio=0.25).settings() == {"ratio": 0.25}
    assert methods.get(f"{path}:Mine").__name__ == "Mine"
    with pytest.raises(UnknownMethod, match="must define one Pruner"):
        methods.get(f"{path}:Other")


def test_a_file_that_fails_leaves_no_half_module(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(METHOD + "\nraise KeyError('late')")
    before = set(sys.modules)
    with pytest.raises(KeyError):
        methods.get(str(path))
    assert set(sys.modules) == before


def test_an_installed_method_is_listed_without_being_imported(install: Install, harness: Command):
    install("pack", "norms", "raise RuntimeError('imported')  # boom")
    assert [methods.provider(entry) for entry in methods.plugins()["norms"]] == ["pack 1.2"]
    assert "norms" not in methods.names()
    listed = {row["name"]: row for row in harness("list", "methods", "--json").document}
    assert listed["norms"]["from"] == "pack 1.2" and listed["fastv"]["from"] == "here"
    assert "pack 1.2" in harness("list", "methods").out


def test_an_installed_method_is_built_by_its_name_and_known_by_its_file(install: Install):
    file = install("pack", "norms")
    assert methods.build("norms").settings() == {"ratio": 0.5}
    assert method_file("norms") == file and current_code("norms", "reference-a", "reference") is not None


def test_the_file_of_an_installed_method_is_found_without_importing_it(install: Install):
    file = install("pack", "norms", "raise RuntimeError('imported')  # boom")
    assert method_file("norms") == file
    assert "pack" not in sys.modules


def test_two_methods_of_one_name_are_a_clash_that_names_both(install: Install, harness: Command):
    install("pack", "fastv")
    with pytest.raises(UnknownMethod, match="2 methods are called 'fastv': of this project and of pack"):
        methods.get("fastv")
    install("rival", "norms")
    install("pack2", "norms")
    said = harness("validate", "norms")
    assert said.code == 2 and "of pack2 1.2 and of rival 1.2" in said.complaint
    assert method_file("norms") is None


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [("norms", "pack.mine:Nothing", "cannot be imported"), ("norms", "pack.none:Mine", "cannot be imported"),
     ("norms", "pack.mine:dataclass", "is no Pruner")],
)  # fmt: skip
def test_an_entry_point_that_leads_nowhere_says_so(install: Install, name: str, target: str, reason: str):
    install("pack", name, target=target)
    with pytest.raises(UnknownMethod, match=reason):
        methods.get(name)


def test_an_entry_point_and_its_pruner_must_agree_on_the_name(install: Install):
    install("pack", "norms", METHOD.replace("NAME", "others"))
    with pytest.raises(UnknownMethod, match="calls itself 'others'"):
        methods.get("norms")
