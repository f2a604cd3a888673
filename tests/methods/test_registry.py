from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import methods
from methods.base import HOOKS, Pruner, UnknownMethod

SHIPPED = ["divprune", "fastv", "full", "grid", "quietprune", "random", "vprune"]

MINE = """
from dataclasses import dataclass
from methods.base import Pruner, Selection

@dataclass(frozen=True)
class Mine(Pruner):
    name = "mine"
    strength: float = 2.0
"""


def test_every_file_that_is_a_method_is_listed_and_nothing_else():
    assert set(SHIPPED) <= set(methods.names())
    assert methods.names() == sorted(methods.names())
    assert not {"base", "captured", "ops", "registry", "selection", "settings", "__init__"} & set(methods.names())


def test_listing_names_imports_no_method():
    code = "import sys, methods; methods.names(); sys.exit(any('methods.' + n in sys.modules for n in methods.names()))"
    root = Path(methods.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("name", methods.names())
def test_every_method_is_a_frozen_dataclass_named_like_its_file_that_tells_where_it_comes_from(name):
    cls = methods.get(name)
    assert issubclass(cls, Pruner) and cls.name == name and cls.title
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    assert set(cls.hooks) <= set(HOOKS) and (cls.hooks or name == "full")
    assert cls.positions in ("original", "renumber")
    assert sys.modules[cls.__module__].__doc__
    if cls.paper:
        assert cls.licence and "Departures" in sys.modules[cls.__module__].__doc__


@pytest.mark.parametrize("name", methods.names())
def test_every_preset_builds_and_differs_from_the_default(name):
    default = methods.build(name)
    for preset, settings in methods.get(name).presets.items():
        built = methods.build(f"{name}:{preset}")
        assert built != default and {key: built.settings()[key] for key in settings} == dict(settings)


def test_settings_override_a_preset():
    assert methods.build("fastv:k3").settings() == {"k": 3, "depth": 32, "r": 0.5, "query": "last"}
    assert methods.build("fastv:k3", k=5, r=0.25).settings() == {"k": 5, "depth": 32, "r": 0.25, "query": "last"}


def test_an_unknown_name_gets_the_three_nearest():
    with pytest.raises(UnknownMethod, match=r"no method 'fastvv'; nearest: fastv, .*, .*\. `harness list methods`"):
        methods.get("fastvv")


def test_an_unknown_preset_or_setting_names_the_known_ones():
    with pytest.raises(UnknownMethod, match=r"no preset 'k9'.*k3"):
        methods.build("fastv:k9")
    with pytest.raises(UnknownMethod, match="grid has no preset 'fine'; presets: none"):
        methods.build("grid:fine")
    with pytest.raises(UnknownMethod, match=r"no setting 'kk'.*query"):
        methods.build("fastv", kk=2)


def test_a_path_gives_the_pruner_in_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    assert methods.get(str(file)).name == "mine"
    assert methods.build(str(file), strength=3.0).settings() == {"strength": 3.0}


def test_a_file_with_two_pruners_needs_a_class_name(tmp_path):
    file = tmp_path / "two.py"
    file.write_text(MINE + MINE.replace("Mine", "Other").replace("mine", "other"))
    with pytest.raises(UnknownMethod, match=r"found \['Mine', 'Other'\]; name it as path.py:Class"):
        methods.get(str(file))
    assert methods.get(f"{file}:Other").name == "other"
    assert methods.build(f"{file}:Other").name == "other"


def test_a_file_without_a_pruner_and_a_missing_file_are_refused(tmp_path):
    file = tmp_path / "nothing.py"
    file.write_text("from methods.base import Pruner\n")  # an import is no definition
    with pytest.raises(UnknownMethod, match="found none"):
        methods.get(str(file))
    with pytest.raises(UnknownMethod, match="no file"):
        methods.get(str(tmp_path / "missing.py"))
    with pytest.raises(UnknownMethod):
        methods.get(f"{file}:Mine")
