"""Which runs of a store a user's word means: an id, its beginning, or METHOD[:PRESET][:BUDGET]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.budget.spec import BudgetError, BudgetSpec
from harness.records.errors import UnknownRun

if TYPE_CHECKING:
    from harness.store.database import Store

Row = Mapping[str, Any]


def rows_of(store: Store) -> list[Row]:
    """The store's runs, oldest first, as plain rows: None for what was not measured."""
    frame = store.runs().astype(object)
    return frame.where(frame.notna(), None).to_dict("records")


def newest(runs: Iterable[Row]) -> list[Row]:
    """Of runs that differ in code alone, the last; in the order of the first."""
    return list({run["cell_id"]: run for run in runs}.values())


def named(runs: Sequence[Row], word: str) -> list[Row]:
    """The runs that a word means; a word for a method means the newest of each cell."""
    by_id = [run for run in runs if run["run_id"].startswith(word)]
    return by_id or [run for run in newest(runs) if word in _spellings(run) or _same_budget(run, word)]


def with_controls(runs: Sequence[Row], words: Iterable[str]) -> list[Row]:
    """The runs that the words mean, with no pruning and random choice on the same samples. Raises UnknownRun."""
    meant: dict[str, Row] = {}
    for word in words:
        found = named(runs, word)
        if not found:
            raise UnknownRun(f"no run {word!r} in the store; `harness list runs` shows them")
        meant |= {run["run_id"]: run for run in found}
    asked = {(run["model"], run["sample_ids"]) for run in meant.values()}
    budgets = {(run["model"], run["sample_ids"], run["budget"]) for run in meant.values()}
    for run in newest(runs):
        samples = (run["model"], run["sample_ids"])
        if (run["method"] == "full" and samples in asked) or (
            run["method"] == "random" and (*samples, run["budget"]) in budgets
        ):
            meant.setdefault(run["run_id"], run)
    return [run for run in runs if run["run_id"] in meant]


def name_of(run: Row) -> str:
    """A run in words: "fastv:25%", "quietprune:init:50%", "full"."""
    preset = f":{run['preset']}" if run["preset"] else ""
    return run["method"] if run["method"] == "full" else f"{run['method']}{preset}:{run['budget']}"


def _spellings(run: Row) -> set[str]:
    with_preset = f"{run['method']}:{run['preset']}" if run["preset"] else run["method"]
    return {run["method"], with_preset, f"{with_preset}:{run['budget']}"}


def _same_budget(run: Row, word: str) -> bool:
    """Whether a word is METHOD:BUDGET with the budget in other words: "fastv:0.5" for "fastv:50%"."""
    method = f"{run['method']}:{run['preset']}:" if run["preset"] else f"{run['method']}:"
    try:
        return word.startswith(method) and str(BudgetSpec.parse(word.removeprefix(method))) == run["budget"]
    except BudgetError:
        return False
