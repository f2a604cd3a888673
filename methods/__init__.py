"""Visual-token pruning methods: one file each. `names()` lists them, `get(name_or_path)` gives the class."""

from methods.registry import build, get, names

__all__ = ["build", "get", "names"]
