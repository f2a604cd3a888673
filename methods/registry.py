"""Finding methods: one file in this folder is one method, named like the file. Listing imports nothing."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from methods.base import Pruner, UnknownMethod

_NOT_METHODS = {"__init__", "base", "captured", "ops", "registry", "selection"}


def names() -> list[str]:
    """The names of the shipped methods, sorted."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NOT_METHODS)


def get(name: str) -> type[Pruner]:
    """The class behind a name ("fastv"), or in a file ("./mine.py" or "./mine.py:Class").

    Raises UnknownMethod with the three nearest names, or with what the file lacks.
    """
    path, _, class_name = name.partition(":")
    if path.endswith(".py"):
        return _only_pruner(_load(Path(path)), path, class_name)
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.0)
        raise UnknownMethod(f"no method {name!r}; nearest: {', '.join(near)}. `harness list methods` names them all")
    return _only_pruner(importlib.import_module(f"methods.{name}"), f"methods/{name}.py", "")


def build(name: str, **settings: object) -> Pruner:
    """An instance: "fastv", "quietprune:init" (a preset) or a path; settings override the preset's.

    Raises UnknownMethod; TypeError-like mistakes in settings become UnknownMethod with the known ones named.
    """
    base, _, preset = (name, "", "") if ".py" in name else name.partition(":")
    cls = get(base)
    if preset and preset not in cls.presets:
        raise UnknownMethod(f"{base} has no preset {preset!r}; presets: {', '.join(cls.presets) or 'none'}")
    merged = {**(cls.presets[preset] if preset else {}), **settings}
    known = list(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    unknown = [key for key in merged if key not in known]
    if unknown:
        raise UnknownMethod(f"{base} has no setting {unknown[0]!r}; settings: {', '.join(known) or 'none'}")
    return cls(**merged)


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnknownMethod(f"no file {path}; give the path of a Python file that defines a Pruner")
    spec = importlib.util.spec_from_file_location(f"pruner_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _only_pruner(module: ModuleType, where: str, class_name: str) -> type[Pruner]:
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Pruner) and value.__module__ == module.__name__
    }
    if class_name:
        found = {key: value for key, value in found.items() if key == class_name}
    if len(found) != 1:
        raise UnknownMethod(
            f"{where} must define one Pruner, found {sorted(found) or 'none'}; name it as path.py:Class"
        )
    return next(iter(found.values()))
