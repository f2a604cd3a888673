"""Benchmark visual-token pruners at equal budget on the same machine.

    with harness.prune(model, "fastv", budget=0.5): ...   prune inside your own code
    harness.load("results/local.duckdb")                  runs, samples and latencies as pandas frames

Importing this package imports neither torch nor a database.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_LAZY = {"prune": "harness.models.prune", "load": "harness.store.database"}

__all__ = ["load", "prune"]


def refuse_shadows(root: Path, path: list[str] | None = None) -> None:
    """Raise ImportError when `methods` or `leaderboard` would come from elsewhere than beside this package.

    root: the folder that holds our packages. path: where to look, None for sys.path. Other distributions use these
    names too; running their code by mistake would give wrong results in silence.
    """
    for name in ("methods", "leaderboard"):
        spec = PathFinder.find_spec(name, path)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found != root / name / "__init__.py":
            raise ImportError(
                f"`import {name}` finds {found or 'nothing'} instead of {root / name}; another package of that name "
                "shadows it. Use a fresh environment (make run), or uninstall the other one"
            )


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


refuse_shadows(_ROOT)
