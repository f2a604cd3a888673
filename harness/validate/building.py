"""A method built from what a user typed, and every way in which that can fail in words."""

from __future__ import annotations

import methods
from harness.records.errors import UsageError
from harness.validate.contract import MISTAKES
from methods.base import Pruner, PruningError


def built(name: str) -> Pruner:
    """The method with its own settings. Raises UsageError for a file that cannot be imported or built."""
    try:
        pruner = methods.build(name)
    except PruningError as error:
        raise UsageError(str(error)) from error
    except (SyntaxError, *MISTAKES) as mistake:
        raise UsageError(f"{name} cannot be built: {type(mistake).__name__}: {mistake}") from mistake
    if not getattr(pruner, "name", ""):
        raise UsageError(f'{name} has no name; write name = "..." in the class')
    return pruner
