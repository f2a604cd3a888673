"""Finding methods: files of this folder, entry points of installed packages, and paths. Listing imports nothing.

One file in this folder is one method, named like the file. A package brings its own with an entry point of the group
`visual_token_pruners`, whose name is the method's: `my_method = "my_package.my_method:MyMethod"`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from methods.base import Pruner, UnknownMethod
from methods.settings import settings_of

GROUP = "visual_token_pruners"
_NOT_METHODS = {"__init__", "base", "captured", "ops", "registry", "selection", "settings"}


def names() -> list[str]:
    """The names of the shipped methods, sorted."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NOT_METHODS)


def plugins() -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of installed packages by the method's name, sorted; several under one name are a clash."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(entry_points(group=GROUP)):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def provider(entry: EntryPoint) -> str:
    """The package that an entry point comes from, in words: "my-package 1.0"."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def get(name: str) -> type[Pruner]:
    """The class behind a name ("fastv") of ours or of a plugin, or in a file ("./mine.py" or "./mine.py:Class").

    Raises UnknownMethod with the three nearest names, with what the file lacks, or with who else claims the name.
    """
    path, _, class_name = name.partition(":")
    if path.endswith(".py"):
        return _only_pruner(_load(Path(path).expanduser()), path, class_name)
    shipped, others = name in names(), plugins()
    claimed = ["this project"] * shipped + [provider(entry) for entry in others.get(name, ())]
    if len(claimed) > 1:
        raise UnknownMethod(
            f"{len(claimed)} methods are called {name!r}: of {' and of '.join(claimed)}; uninstall one, or give a path"
        )
    if shipped:
        return _only_pruner(importlib.import_module(f"methods.{name}"), f"methods/{name}.py", "")
    if claimed:
        return _from_plugin(others[name][0])
    near = difflib.get_close_matches(name, [*names(), *others], n=3, cutoff=0.0)
    here = f" The file here is ./{name}.py." if Path(f"{name}.py").is_file() else ""
    raise UnknownMethod(f"no method {name!r}; nearest: {', '.join(near)}. `harness list methods` names them all.{here}")


def build(name: str, **settings: object) -> Pruner:
    """An instance: "fastv", "quietprune:init" (a preset) or a path; settings override the preset's.

    Raises UnknownMethod; TypeError-like mistakes in settings become UnknownMethod with the known ones named.
    """
    base, _, preset = (name, "", "") if ".py" in name else name.partition(":")
    cls = get(base)
    if preset and preset not in cls.presets:
        raise UnknownMethod(f"{base} has no preset {preset!r}; presets: {', '.join(cls.presets) or 'none'}")
    merged = {**(cls.presets[preset] if preset else {}), **settings}
    known = list(settings_of(cls))
    unknown = [key for key in merged if key not in known]
    if unknown:
        raise UnknownMethod(f"{base} has no setting {unknown[0]!r}; settings: {', '.join(known) or 'none'}")
    return cls(**merged)


def _from_plugin(entry: EntryPoint) -> type[Pruner]:
    where = f"{entry.value} of {provider(entry)}"
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise UnknownMethod(f"{where} cannot be imported: {error}") from error
    kind = _only_pruner(found, where, "") if isinstance(found, ModuleType) else found
    if not (isinstance(kind, type) and issubclass(kind, Pruner)):
        raise UnknownMethod(f"{where} is no Pruner; its entry point must name a subclass of methods.base.Pruner")
    if getattr(kind, "name", "") != entry.name:
        raise UnknownMethod(f"{where} calls itself {getattr(kind, 'name', '')!r}, its entry point {entry.name!r}")
    return kind


def _load(path: Path) -> ModuleType:
    """The module of a file, run anew. It stays among the loaded modules, where dataclasses and type hints look."""
    if not path.is_file():
        raise UnknownMethod(f"no file {path}; give the path of a Python file that defines a Pruner")
    name = f"pruner_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name) if before is None else sys.modules.update({name: before})
        raise
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
