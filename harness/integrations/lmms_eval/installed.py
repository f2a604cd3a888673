"""Check that lmms-eval is here, and say how to get it. Nothing of it is imported."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from harness.records.errors import EnvironmentProblem

PREFIX = "lmms:"  # begins the name of a benchmark that is a task of lmms-eval's
VERSION = "0.7.3"  # its internals move monthly
LINES = (
    "pip install -c constraints-lmms.txt --no-deps lmms-eval",
    "pip install -c constraints-lmms.txt accelerate datasets evaluate sacrebleu loguru pytz tenacity pytablewriter",
)
CORE = ("lmms_eval", "accelerate", "datasets", "evaluate", "sacrebleu", "loguru", "pytz", "tenacity", "pytablewriter")


def absent() -> list[str]:
    """The packages that the evaluator needs and that are not here."""
    return [package for package in CORE if find_spec(package) is None]


def found_version() -> str | None:
    """lmms-eval's version, None where it is not installed."""
    try:
        return version("lmms-eval")
    except PackageNotFoundError:
        return None


def check_installed() -> None:
    """Raise EnvironmentProblem, with the lines that install it, unless lmms-eval can be used; then keep it quiet."""
    if missing := absent():
        raise EnvironmentProblem(f"a task of lmms-eval needs {', '.join(missing)}; in a checkout: {' && '.join(LINES)}")
    if (here := found_version()) != VERSION:
        raise EnvironmentProblem(f"tasks are proven on lmms-eval {VERSION}, here is {here}: {LINES[0]}")
    for name, value in (("LOGURU_LEVEL", "ERROR"), ("TQDM_DISABLE", "1"), ("OPENAI_API_KEY", "none")):
        os.environ.setdefault(name, value)  # no log, no bars, no OpenAI client that wants a key when it is imported
