"""The syntax of modules and of all that they import, hashed: what ran, whatever it is commented with or lies.

Modules are read, never imported. The roots are the caller's (provenance.py).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = ("methods", "harness")
REGISTRY = "registry.py"  # a module of ours by that name resolves names; what it may import is a root of its own
INSTALLED = ("site-packages", "dist-packages")
Stamp = tuple[int, int]


def code_hash(files: Iterable[Path], root: Path = ROOT) -> str:
    """16 hex digits of the sha256 over the syntax of some files and of all that they import.

    Comments, docstrings, layout and the places of files do not count: a module is its statements, plus the names that
    it imports, and of a module of ours not from where. Raises OSError, SyntaxError for a file that cannot be read.
    """
    modules = sorted({_module(path, stamp_of(path)).digest for path in closure(files, root)})
    return hashlib.sha256(b"".join(modules)).hexdigest()[:16]


def syntax_hash(path: Path) -> str:
    """64 hex digits of the sha256 over the syntax of one file alone. Raises OSError, SyntaxError."""
    return _module(path, stamp_of(path)).digest.hex()


def closure(files: Iterable[Path], root: Path = ROOT) -> set[Path]:
    """Some files and those that they import, directly or not, inside functions too: of ours, and a file's neighbours.

    Left out: imports for the type checker, which do not run; registries; packages above a module, which only export.
    """
    root, found, waiting = root.resolve(), set[Path](), [path.resolve() for path in files]
    while waiting:
        path = waiting.pop()
        if path in found or (path.name == REGISTRY and _is_ours(path, root)):
            continue
        found.add(path)
        waiting += _imported(path, stamp_of(path), root)
    return found


def stamp_of(path: Path) -> Stamp:
    """Modification time (ns) and size of a file, the key of its cached reading."""
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size


def _is_ours(path: Path, root: Path) -> bool:
    return path.is_relative_to(root) and path.relative_to(root).parts[0] in OURS


@lru_cache(maxsize=1024)
def _imported(path: Path, stamp: Stamp, root: Path) -> tuple[Path, ...]:
    """The files that a file imports: of ours, of its own package, or lying beside it."""
    found = list[Path]()
    for level, module, name in _module(path, stamp).imports:
        base = path.parents[level - 1] if level else _base(path, module.partition(".")[0], root)
        if base is not None:
            names = [*module.split("."), name]
            places = [base.joinpath(*filter(None, words)) for words in (names, names[:-1])]
            files = [file for one in places for file in (one.with_name(f"{one.name}.py"), one / "__init__.py")]
            found += [file.resolve() for file in files if file.is_file()][:1]
    return tuple(found)


def _base(path: Path, top: str, root: Path) -> Path | None:
    """The folder in which a file's absolute import of package `top` is looked for; None for installed packages."""
    if top in OURS:
        return root
    if _is_ours(path, root):
        return None
    home = path.parent
    while (home / "__init__.py").is_file():
        home = home.parent
    alone = home == path.parent and home.name not in INSTALLED  # a user's file may import what lies beside it
    return home if alone or top == path.relative_to(home).parts[0] else None


@dataclass(frozen=True)
class _Module:
    """A module without what cannot touch an answer. imports: (level, module, name or "") of each imported name."""

    digest: bytes
    imports: frozenset[tuple[int, str, str]]


@lru_cache(maxsize=1024)
def _module(path: Path, stamp: Stamp) -> _Module:
    tree = _Plain()
    words = list(_spelled(tree.visit(ast.parse(path.read_bytes(), str(path)))))
    names = sorted(f"{module} {name}" for module, name in tree.names)
    total = hashlib.sha256("\0".join([*words, *names]).encode("utf-8", "surrogatepass"))
    return _Module(total.digest(), frozenset(tree.imports))


class _Plain(ast.NodeTransformer):
    """Takes imports, docstrings and what is for the type checker out of a tree, and notes the imports.

    names: (module, "" for one of ours or of a neighbour; the name, and what it is called here). Imports are noted
    without their order, which a moved module changes.
    """

    def __init__(self) -> None:
        self.imports = set[tuple[int, str, str]]()
        self.names = set[tuple[str, str]]()

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)  # a text that stands alone does nothing

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        test = node.test.attr if isinstance(node.test, ast.Attribute) else getattr(node.test, "id", "")
        if test == "TYPE_CHECKING":
            return [one for other in node.orelse for one in _listed(self.visit(other))]
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._note(0, alias.name, "", alias.asname or "")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._note(node.level, node.module or "", alias.name, alias.asname or "")

    def _note(self, level: int, module: str, name: str, called: str) -> None:
        self.imports.add((level, module, name))
        moving = level or module.partition(".")[0] in OURS
        self.names.add(("" if moving else module, f"{name} {called}"))


def _listed(found: ast.AST | list[ast.AST] | None) -> list[ast.AST]:
    return found if isinstance(found, list) else [] if found is None else [found]


def _spelled(node: Any) -> Iterator[str]:
    """A tree in words that are the same in every version of Python: fields that are empty are left out."""
    if isinstance(node, ast.Constant):
        yield repr(node.value)
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in ast.iter_fields(node):
            if value is not None and value != [] and name not in ("ctx", "type_comment"):
                yield name
                yield from _spelled(value)
        yield ")"
    elif isinstance(node, list):
        for one in node:
            yield from _spelled(one)
            yield ","
    else:
        yield repr(node)
