"""The words of a grid, as flags or in a TOML file: methods, budgets, models, benchmarks, seeds and a run's options."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from harness.records.errors import UsageError, nearest
from harness.request.options import Flag, RunOptions
from harness.request.settings import parse_settings

SEEDS = 3  # of stochastic methods
NOT_IN_A_FILE = {"revision", "seed", "store", "force", "json"}  # of a command, not of its grid


@dataclass(frozen=True, kw_only=True)
class GridWords(RunOptions):
    """A grid as it was written. seeds: how many, or which. settings: method -> its own."""

    methods: Annotated[tuple[str, ...], Flag("Methods, NAME or NAME:PRESET, or all.")] = ()
    budgets: Annotated[tuple[int | float | str, ...], Flag("Budgets, as for run: 50%,25%,native.")] = ()
    models: Annotated[tuple[str, ...], Flag("Short names (`harness list models`), folders or hub ids.")] = (
        "reference-a",
    )
    benchmarks: Annotated[tuple[str, ...], Flag("Names, files or folders of your own, lmms:TASK.")] = (
        "reference-quick",
    )
    seeds: Annotated[int | tuple[int, ...], Flag("Seeds of stochastic methods.", least=1, spelled=int)] = SEEDS
    controls: Annotated[bool, Flag("Leave out random, grid, pool, ...", words=" /--no-controls")] = True
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_grid(path: Path) -> dict[str, Any]:
    """The keys of a TOML file, which are fields of `GridWords`. Raises UsageError naming the nearest keys."""
    try:
        written = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise UsageError(f"cannot read the grid {path}: {problem}") from problem
    known = [one.name for one in fields(GridWords) if one.name not in NOT_IN_A_FILE]
    for key in written:
        if key not in known:
            raise UsageError(f"{path} has an unknown key {key!r}; nearest: {nearest(key, known)}")
    words = [f"{key}={value!r}" for key, value in written.items() if key != "settings"]
    return {**parse_settings(str(path), GridWords, words), **_settings(path, written)}


def _settings(path: Path, written: Mapping[str, Any]) -> dict[str, Any]:
    settings = written.get("settings")
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(one, dict) for one in settings.values()):
        raise UsageError(f"{path}: settings are tables, one a method, e.g. [settings.fastv]")
    return {"settings": settings}
