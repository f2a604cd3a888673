"""The wheel: it carries what the tree has, and a new user's first commands work from it in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("methods", "harness", "leaderboard")

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT], check=True)
    (built,) = folder.glob("*.whl")
    return built


def tracked(*folders: str) -> set[str]:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", *folders], capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_has_every_file_of_the_packages_and_the_results(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    results = {name.replace("results/", "leaderboard/") for name in tracked("results/published", "results/submissions")}
    assert tracked(*PACKAGES) | results <= names
    assert "harness/reference/model-a/model.safetensors" in names and "harness/reference/model-b/config.json" in names
    assert "harness/authoring/templates/test.txt" in names
    places = {name.split("/")[0] for name in names}
    assert {place for place in places if not place.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in names if name.endswith((".pyc", ".duckdb", ".pt"))]


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel alone, its requirements borrowed from this one; gives its bin folder."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def test_a_new_user_comes_from_nothing_to_a_run(programs: Path, tmp_path: Path):
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = {
        "HOME": str(tmp_path), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"
    }  # fmt: skip

    def type_in(line: str) -> str:
        done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    assert str(programs.parent) in type_in('python -c "import harness; print(harness.__file__)"')
    assert "demo.py" in type_in("harness new demo")
    assert len((folder / "demo.py").read_text().splitlines()) <= 60
    assert "exact budget" in type_in("harness validate ./demo.py")
    assert "accuracy" in type_in("harness run --method ./demo.py --limit 8 --no-timing")
    assert "./demo.py" in type_in("harness list runs")
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"demo.py", "test_demo.py"}
