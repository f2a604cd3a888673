"""`harness list methods|models|benchmarks|suites|runs`."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from harness.cli import options
from harness.cli.printing import print_json, print_rows


class Listed(StrEnum):
    """Things that can be listed."""

    methods = "methods"
    models = "models"
    benchmarks = "benchmarks"
    suites = "suites"
    runs = "runs"


def list_(what: Listed, store: options.Store = None, json: options.Json = False) -> None:
    """List methods, models, benchmarks, suites or runs. With --json: an array of objects with `name`."""
    rows = _runs(store) if what is Listed.runs else _LISTS[what]()
    if json:
        print_json(rows)
    else:
        print_rows(rows, _COLUMNS[what])


def _methods() -> list[dict[str, Any]]:
    import methods

    ours = [{**describe_method(name), "from": "here"} for name in methods.names()]
    others = [(name, entry) for name, entries in methods.plugins().items() for entry in entries]
    unknown = dict.fromkeys(ours[0])  # what is not imported says nothing of itself
    return ours + [{**unknown, "name": name, "from": methods.provider(entry)} for name, entry in others]


def describe_method(name: str) -> dict[str, Any]:
    """Describe a method: hooks, licence of the authors' code, paper, presets, settings and defaults."""
    import methods

    kind = methods.get(name)
    return {
        "name": kind.name,
        "title": kind.title,
        "hooks": list(kind.hooks),
        "paper": kind.paper,
        "licence": kind.licence,
        "presets": {preset: dict(settings) for preset, settings in kind.presets.items()},
        "settings": kind().settings(),
    }


def _models() -> list[dict[str, Any]]:
    """The embedded models, then the published ones that have a short name; present: whether its files came with us."""
    from harness.models import catalogue
    from harness.models.registry import EMBEDDED

    ours = [
        {
            "name": name, "family": None, "parameters": None, "hub_id": None, "licence": "ours", "folder": str(folder),
            "present": (folder / "config.json").is_file(),
        }
        for name, folder in sorted(EMBEDDED.items())
    ]  # fmt: skip
    entries = [catalogue.named(name) for name in catalogue.names()]
    fields = ("name", "family", "parameters", "hub_id", "licence")
    published = [{**{key: getattr(entry, key) for key in fields}, "folder": None, "present": None} for entry in entries]
    return ours + published


def _benchmarks() -> list[dict[str, Any]]:
    from harness.benchmarks import describe, names

    return [describe(name) for name in names()]


def _suites() -> list[dict[str, Any]]:
    from dataclasses import asdict

    from harness.benchmarks.suites import SUITES

    return [asdict(suite) for suite in SUITES.values()]


def _runs(path: options.Store) -> list[dict[str, Any]]:
    from harness.cli.stores import open_store

    rows = open_store(path).runs().to_dict("records")
    return [{"name": row["run_id"], **{key: row[key] for key in _RUN_FIELDS}} for row in rows]


_LISTS: dict[Listed, Callable[[], list[dict[str, Any]]]] = {
    Listed.methods: _methods,
    Listed.models: _models,
    Listed.benchmarks: _benchmarks,
    Listed.suites: _suites,
}
_RUN_FIELDS = (
    "status", "method", "preset", "model", "benchmark", "budget", "seed", "n", "errors", "accuracy", "ra",
    "flops_ratio", "lr", "indicative", "stale", "started_at", "finished_at",
)  # fmt: skip
_COLUMNS = {
    Listed.methods: ("name", "hooks", "presets", "paper", "licence", "from"),
    Listed.models: ("name", "family", "parameters", "hub_id", "licence", "present"),
    Listed.benchmarks: ("name", "samples", "metrics", "chance", "rule_of", "licence"),
    Listed.suites: ("name", "benchmarks", "models", "budgets", "seen_in"),
    Listed.runs: ("name", "status", "method", "model", "benchmark", "budget", "seed", "accuracy", "ra", "lr", "stale"),
}
