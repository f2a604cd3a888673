"""What can go wrong for a user, and the exit code of each.

    HarnessError                    1  a check or a run failed
    ├── CorruptCheckpoint           1  a model folder that cannot be read
    ├── UndecodableImage            1  one image; inside a run it becomes an error row and the run goes on
    ├── CorruptBenchmark            1  a data set that is torn, empty, or not what its declaration says
    ├── CorruptLog                  1  a run log whose header or records contradict themselves
    ├── StoreCorrupt                1  the database cannot be opened; `harness db rebuild` remakes it
    ├── DiskFull                    1  nothing more can be written
    ├── UsageError                  2  a word that cannot be acted on
    │   ├── UnknownModel
    │   ├── UnknownBenchmark
    │   ├── UnknownRun
    │   └── InfeasibleBudget           the method cannot reach the budget; the message names the floor
    ├── EnvironmentProblem          3  this machine lacks something
    │   ├── ModelUnavailable           gated, or not in the local cache
    │   ├── BenchmarkUnavailable       not in the local cache, and no network
    │   └── DeviceUnavailable
    ├── StoreLocked                 4  another process holds the store
    └── Interrupted               130  Ctrl-C; what was done is kept

Messages say what was expected, what came, and what to do next, in one line. The errors of methods have their own
tree (methods/base.py), since methods import nothing of the harness; the command line translates them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Base of every error that a user may see without a traceback."""

    exit_code = 1


class CorruptCheckpoint(HarnessError):
    """A model folder whose files are missing, torn or of another model."""


class UndecodableImage(HarnessError):
    """An image file that cannot be opened, is torn, or is larger than the cap."""


class CorruptBenchmark(HarnessError):
    """A data set that is torn, empty, or not what its declaration says."""


class CorruptLog(HarnessError):
    """A run log that cannot be believed."""


class StoreCorrupt(HarnessError):
    """A database file that DuckDB refuses."""


class DiskFull(HarnessError):
    """No space left where a log or the store lies."""


class UsageError(HarnessError):
    """Something in the command cannot be acted on."""

    exit_code = 2


class UnknownModel(UsageError):
    """No model of that name or path."""


class UnknownBenchmark(UsageError):
    """No benchmark of that name."""


class UnknownRun(UsageError):
    """No run with that id in the store, or more than one."""


class InfeasibleBudget(UsageError):
    """The method cannot reach the asked budget on this model."""


class EnvironmentProblem(HarnessError):
    """This machine lacks something that the command needs."""

    exit_code = 3


class ModelUnavailable(EnvironmentProblem):
    """A hub model that is gated, or absent from the local cache while offline."""


class BenchmarkUnavailable(EnvironmentProblem):
    """A data set that is neither given nor cached, and cannot be reached; or the package that reads it is missing."""


class DeviceUnavailable(EnvironmentProblem):
    """The asked device does not exist here."""


class StoreLocked(HarnessError):
    """Another process holds the store's lock."""

    exit_code = 4


class Interrupted(HarnessError):
    """The user pressed Ctrl-C."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """The three known names that look most like `name`, for a message: "vprune, fastv, full"."""
    return ", ".join(difflib.get_close_matches(name, list(known), n=3, cutoff=0.0))
