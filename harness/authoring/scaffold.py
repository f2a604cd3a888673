"""One method file and one test file from the templates beside this file, one template a hook point.

Needs the standard library alone, so that `harness new` answers at once.
"""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from string import Template

from harness.records.errors import HarnessError, UsageError

TEMPLATES = Path(__file__).parent / "templates"
HOOKS = ("pre-tokenization", "in-vit", "interface", "in-llm")
LONGEST = 40  # characters of a name
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@dataclass(frozen=True)
class Scaffold:
    """The two files of a new method. name: my_method; hook: one of HOOKS; folder: where they go."""

    name: str
    hook: str
    folder: Path

    @property
    def method_file(self) -> Path:
        return self.folder / f"{self.name}.py"

    @property
    def test_file(self) -> Path:
        return self.folder / f"test_{self.name}.py"

    def texts(self) -> dict[Path, str]:
        """What stands in each file."""
        words = self.name.split("_")
        filled = {
            "name": self.name,
            "title": " ".join(words).capitalize(),
            "kind": "".join(word.capitalize() for word in words),
            "test": self.test_file.name,
        }
        templates = {self.method_file: f"{self.hook}.txt", self.test_file: "test.txt"}
        return {
            path: Template((TEMPLATES / template).read_text()).substitute(filled)
            for path, template in templates.items()
        }


def write(scaffold: Scaffold) -> tuple[Path, Path]:
    """Write method and test; gives their paths. Raises UsageError for a name or place that cannot be used.

    Nothing is ever overwritten: where one of the two exists, neither is written.
    """
    check_name(scaffold.name)
    taken = [path for path in (scaffold.method_file, scaffold.test_file) if path.exists() or path.is_symlink()]
    if taken:
        raise UsageError(f"{taken[0]} exists and is left as it is; choose another name, or another folder with --out")
    try:
        scaffold.folder.mkdir(parents=True, exist_ok=True)
        for path, text in scaffold.texts().items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise HarnessError(
            f"cannot write to {scaffold.folder}: {error.strerror}; choose a folder with --out"
        ) from error
    return scaffold.method_file, scaffold.test_file


def check_name(name: str) -> None:
    """Raise UsageError unless a file and a class can be called so without hiding another module."""
    if len(name) > LONGEST or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a method; use small letters, digits and single underscores, a letter first, at most "
            f"{LONGEST} characters: my_method"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UsageError(f"{name!r} is a word of Python; choose another name, such as my_{name}")
    if name.startswith("test_"):
        raise UsageError(f"{name!r} names a test; call the method {name.removeprefix('test_')!r}")
    if (Path(__file__).parents[2] / "methods" / f"{name}.py").exists():
        raise UsageError(f"{name!r} is one of our methods; choose another name, such as my_{name}")
    if name in sys.stdlib_module_names or _is_importable(name):
        raise UsageError(f"{name}.py would hide the Python module {name!r}; choose another name, such as my_{name}")


def _is_importable(name: str) -> bool:
    """Whether a module of that name is installed; one in the working folder is no obstacle."""
    spec = find_spec(name)
    return spec is not None and (spec.origin is None or Path(spec.origin).resolve().parent != Path.cwd().resolve())
