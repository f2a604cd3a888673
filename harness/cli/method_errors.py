"""The errors of methods, which know nothing of exit codes, as errors of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.records.errors import HarnessError, InfeasibleBudget, UsageError
from methods.base import BudgetInfeasible, PruningError, UnknownMethod


@contextmanager
def method_errors() -> Iterator[None]:
    """Within it, an unknown method or an infeasible budget is a usage error (2), any other one a failure (1)."""
    try:
        yield
    except UnknownMethod as error:
        raise UsageError(str(error)) from error
    except BudgetInfeasible as error:
        raise InfeasibleBudget(str(error)) from error
    except PruningError as error:
        raise HarnessError(str(error)) from error
