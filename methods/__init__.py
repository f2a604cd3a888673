"""Visual-token pruning methods: one file each. `names()` lists ours, `plugins()` those of other packages,
`get(name_or_path)` gives the class."""

from methods.registry import build, get, names, plugins, provider

__all__ = ["build", "get", "names", "plugins", "provider"]
