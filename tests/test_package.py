"""What importing the package does, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).resolve().parent.parent


def test_a_foreign_package_of_our_name_is_refused(tmp_path: Path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/__init__.py").write_text("")
    with pytest.raises(ImportError, match="another package of that name shadows it"):
        harness.refuse_shadows(ROOT, [str(tmp_path), str(ROOT)])
    harness.refuse_shadows(ROOT, [str(ROOT), str(tmp_path)])


def test_a_missing_sibling_is_refused(tmp_path: Path):
    with pytest.raises(ImportError, match="finds nothing"):
        harness.refuse_shadows(ROOT, [str(tmp_path)])


def test_the_guard_runs_on_import(tmp_path: Path):
    (tmp_path / "leaderboard.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import harness"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "ImportError: `import leaderboard` finds" in done.stderr


def test_importing_harness_imports_neither_torch_nor_a_database():
    heavy = ("torch", "transformers", "duckdb", "numpy", "pandas", "rich", "PIL")
    code = f"import harness.cli, sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_what_users_call_is_found_on_first_use():
    from harness.models.prune import prune
    from harness.store.database import load

    assert harness.prune is prune and harness.load is load
    assert set(harness.__all__) == {"load", "prune"}
    with pytest.raises(AttributeError, match="'nothing'"):
        harness.nothing  # noqa: B018
