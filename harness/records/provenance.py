"""What an answer depends on besides the words of the command: the code, the samples, the commit.

Imports neither torch nor a method, so that the board can say which runs are stale.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


# Files that can change an answer, as globs from ROOT, besides the method's own. Timing, storage, board and command
# line cannot. A change outside these files that still changes answers raises records.PROTOCOL.
ANSWER_MODULES = (
    "methods/base.py",
    "methods/selection.py",
    "methods/captured.py",
    "methods/ops.py",
    "harness/models/*.py",
    "harness/benchmarks/*.py",
    "harness/benchmarks/scoring/*.py",
    "harness/run/accuracy.py",
    "harness/budget/planning.py",
    "harness/budget/spec.py",
    "harness/records/records.py",
)


@dataclass(frozen=True)
class GitState:
    """The commit that the harness runs from and whether files differ from it; None outside its own repository."""

    commit: str | None
    dirty: bool | None


def code_hash(method_file: Path, root: Path = ROOT) -> str:
    """16 hex digits of the sha256 over the method's file and every file that can change an answer.

    The names of the latter count, the method file's place does not; line endings do not. Raises OSError if the
    method's file cannot be read.
    """
    files = sorted({path for glob in ANSWER_MODULES for path in root.glob(glob)})
    total = hashlib.sha256(_content(method_file))
    for path in files:
        total.update(f"\n{path.relative_to(root).as_posix()}\n".encode() + _content(path))
    return total.hexdigest()[:16]


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


def current_code(method: str, root: Path = ROOT) -> str | None:
    """What `code_hash` says today of a method by name or path; None when its file is gone."""
    path = method_file(method, root)
    return code_hash(path, root) if path else None


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


def _content(path: Path) -> bytes:
    return path.read_bytes().replace(b"\r\n", b"\n")


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
