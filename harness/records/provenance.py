"""What an answer depends on besides the words of the command: the code, the samples, the commit.

Imports neither torch nor a method, so that the board can say which runs are stale.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from harness.records.syntax import ROOT, Stamp, code_hash, stamp_of

DISTRIBUTION = "visual-token-pruning"  # the name of this package where it is installed
ACCURACY_PASS = "harness/run/accuracy.py"


@dataclass(frozen=True)
class GitState:
    """The commit that the harness runs from and whether files differ from it; None outside its own repository."""

    commit: str | None
    dirty: bool | None


def sample_ids_hash(ids: Iterable[str]) -> str:
    """16 hex digits of the sha256 over sample ids, in order."""
    total = hashlib.sha256()
    for name in ids:
        raw = name.encode()
        total.update(len(raw).to_bytes(8, "big") + raw)
    return total.hexdigest()[:16]


def method_file(method: str, root: Path = ROOT) -> Path | None:
    """The source of a method by its name or "PATH.py[:Class]"; None when there is no such file (any more)."""
    if ".py" in method:
        path = Path(method.partition(":")[0]).expanduser()
    else:
        path = root / "methods" / f"{method}.py"
        path = path if path.is_file() else _plugin_file(method)
    return path if path is not None and path.is_file() else None


def _plugin_file(method: str) -> Path | None:
    """The source behind an entry point of `visual_token_pruners`; nothing of its package is imported."""
    found = list(entry_points(group="visual_token_pruners", name=method))
    if len(found) != 1:
        return None
    package, *inner = found[0].module.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not inner:
        return Path(spec.origin) if spec is not None and spec.origin else None
    places = [Path(place, *inner) for place in spec.submodule_search_locations or ()]
    files = [file for place in places for file in (place.with_name(place.name + ".py"), place / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


def current_code(method: str, model: str, benchmark: str, root: Path = ROOT) -> str | None:
    """The code identity today of a run by its recorded words; None where its method or its family cannot be told."""
    family = family_of(model, root)
    return code_of(method, family, benchmark, root) if family else None


def code_of(method: str, family: str, benchmark: str, root: Path = ROOT) -> str | None:
    """The same for a family by its `model_type`; None when the method's file is gone or cannot be parsed."""
    file = method_file(method, root)
    module = root / f"harness/models/families/{family}.py"
    if file is None or not (family.isidentifier() and module.is_file()):
        return None
    try:
        return code_hash([file, module, root / ACCURACY_PASS, *benchmark_files(benchmark, root)], root)
    except (SyntaxError, ValueError, RecursionError):  # a user's file between two edits
        return None


def family_of(model: str, root: Path = ROOT) -> str | None:
    """The `model_type` of an embedded model, one of the catalogue, or a local folder; None for any other word."""
    name = model.partition("@")[0]
    published = _published(root)
    if name in published:
        return published[name]
    embedded = re.fullmatch("reference-([a-z])", name)
    folder = root / f"harness/reference/model-{embedded[1]}" if embedded else Path(name)
    try:
        config = folder.expanduser() / "config.json"
        found = _json(config, stamp_of(config))
    except (OSError, ValueError, RuntimeError):  # no such folder, no JSON, nobody's home
        return None
    kind = found.get("model_type") if isinstance(found, dict) else None
    return kind if isinstance(kind, str) else None


def benchmark_files(benchmark: str, root: Path = ROOT) -> list[Path]:
    """The modules that give a benchmark its questions and scores, by the name that runs record.

    Empty for an lmms-eval task, whose revision holds the code that asks it, and for no benchmark.
    """
    name, folder = benchmark.removesuffix(":blind"), root / "harness/benchmarks"
    if not name or name.startswith("lmms:"):
        return []
    if name in ("reference", "reference-quick"):
        return [folder / "embedded.py"]
    if name.startswith("scene-"):
        return [folder / "synthetic.py"]
    papers = [path for path in sorted((folder / "papers").glob("*.py")) if _names(path, name)]
    return [folder / "declared.py", *papers] if papers else [folder / "own.py"]


def _names(path: Path, name: str) -> bool:
    """True if a text of a file is the name, or an f-string may be: f"hrbench_{size}"."""
    return any(re.fullmatch(text, name) for text in _texts(path, stamp_of(path)))


@lru_cache(maxsize=256)
def _texts(path: Path, stamp: Stamp) -> frozenset[str]:
    """Regular expressions for the texts of a file that may name a benchmark."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_bytes())):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        texts = [one.value if isinstance(one, ast.Constant) else None for one in parts]
        if any(isinstance(text, str) and re.fullmatch("[a-z0-9_]+", text) for text in texts):
            found.add("".join("[a-z0-9_]+" if text is None else re.escape(str(text)) for text in texts))
    return frozenset(found)


def _published(root: Path) -> dict[str, str]:
    """Short name and hub id of each model of the catalogue -> its `model_type`."""
    found = {}
    for path in sorted((root / "harness/models/configs").glob("*.json")):
        entry = _json(path, stamp_of(path))
        found |= dict.fromkeys((path.stem, entry["hub_id"]), entry["config"]["model_type"])
    return found


@lru_cache(maxsize=256)
def _json(path: Path, stamp: Stamp) -> Any:
    return json.loads(path.read_bytes())


def git_state(root: Path = ROOT) -> GitState:
    """The commit and dirty flag of the checkout at `root`; both None without git, or where git does not track us."""
    try:
        tracked = _git(root, "ls-files", "--error-unmatch", "harness/records/records.py")
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)results")  # what ran, not what came out
    except FileNotFoundError:
        return GitState(None, None)
    if tracked is None or commit is None or changes is None:
        return GitState(None, None)
    return GitState(commit.strip(), bool(changes))


def _git(root: Path, *words: str) -> str | None:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def without_home(value: Any, home: Path | None = None) -> Any:
    """A text, or every text in a mapping or list, with "~" for the home folder wherever it stands."""
    home = home or Path.home()
    match value:
        case str() if len(home.parts) > 1:
            folder = "|".join({re.escape(str(home)), re.escape(os.path.realpath(home))})
            return re.sub(rf"(?<![\w.~-])(?:{folder})(?![\w.-])", "~", value)
        case Mapping():
            return {key: without_home(item, home) for key, item in value.items()}
        case list() | tuple():
            return (list if isinstance(value, list) else tuple)(without_home(item, home) for item in value)
        case _:
            return value


def recorded_method(name: str) -> str:
    """A method as a run's identity has it: a name, or the shortest path: "./mine.py:Class", else "~/mine.py"."""
    path, colon, kind = name.partition(":")
    if not path.endswith(".py"):
        return name
    place, here = Path(path).expanduser().absolute(), Path.cwd()
    if not place.is_relative_to(here):
        return without_home(f"{place}{colon}{kind}")
    return f"./{place.relative_to(here).as_posix()}{colon}{kind}"
