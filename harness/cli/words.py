"""Lists in words: "fastv,pact", "50%,25%", "448,896x448"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.budget.spec import BudgetError, BudgetSpec
from harness.records.errors import UsageError

if TYPE_CHECKING:
    from harness.benchmarks.synthetic import Scene

ALL = "all"


def split(words: str) -> list[str]:
    """The parts of "A,B", without repetition. Raises UsageError where there is none."""
    parts = list(dict.fromkeys(part.strip() for part in words.split(",") if part.strip()))
    if not parts:
        raise UsageError(f"expected a list such as A,B, got {words!r}")
    return parts


def revised(models: Sequence[str], revision: str | None) -> tuple[str, ...]:
    """The models, the only one as NAME@REVISION. Raises UsageError for one revision of several models."""
    if revision is None:
        return tuple(models)
    if len(models) > 1:
        raise UsageError(f"--revision is of one model, got {len(models)} models; write NAME@REVISION in the list")
    return (f"{models[0]}@{revision}",)


def methods_of(words: str) -> list[str]:
    """Names of methods; "all" is every shipped one. Raises UnknownMethod."""
    from methods import build, names

    found = [name for word in split(words) for name in (names() if word == ALL else [word])]
    for name in found:
        build(name)
    return list(dict.fromkeys(found))


def budgets_of(words: str) -> list[BudgetSpec]:
    """Budgets whose tokens are known before a run. Raises UsageError."""
    try:
        found = [BudgetSpec.parse(word) for word in split(words)]
    except BudgetError as error:
        raise UsageError(str(error)) from error
    if any(one.kind == "native" for one in found):
        raise UsageError("in native mode the picture decides what is kept; ask for a budget such as 50%")
    return found


def scenes_of(words: str, text_tokens: int) -> list[Scene]:
    """Pictures of the sizes that the words say. Raises UsageError."""
    from harness.benchmarks.synthetic import Scene

    return [Scene.parse(word, text_tokens) for word in split(words)]
