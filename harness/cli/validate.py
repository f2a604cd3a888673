"""`harness validate`: a method against the contract that all methods keep, or golden files against their authors.

What is judged follows from the argument; each kind of it has one function here that does it and prints.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options
from harness.cli.printing import print_json, print_rows, tell
from harness.errors import UsageError

if TYPE_CHECKING:
    from methods.base import Pruner

What = Annotated[
    str | None,
    typer.Argument(
        metavar="[METHOD|PATH]",
        help="NAME, NAME:PRESET, or a path: ./mine.py[:Class]; or your own questions: ./mine.jsonl, or their folder.",
    ),
]
Golden = Annotated[Path | None, typer.Option("--golden", metavar="DIR", help="A folder of golden .npz files.")]
FamilyName = Annotated[str, typer.Option("--family", help="A model family, or all.")]


def validate(what: What = None, golden: Golden = None, family: FamilyName = "all", json: options.Json = False) -> None:
    """Check a method on tiny models, golden files against our methods, or questions. Exit 1 if a check fails."""
    if (what is None) == (golden is None):
        raise UsageError("give either a method (name or path) or --golden DIR, such as --golden tests/golden")
    if golden is not None:
        passed = _golden(golden, json)
    else:
        passed = _questions(Path(what), json) if _is_questions(what) else _method(what, family, json)
    if not passed:
        raise typer.Exit(1)


def _is_questions(what: str) -> bool:
    from harness.benchmarks.own import is_own

    return is_own(what) and ".py" not in what


def _questions(path: Path, json: bool) -> bool:
    from harness.benchmarks.own import check

    problems = check(path)
    if json:
        print_json([{"problem": problem} for problem in problems])
    for problem in problems:
        tell(problem)
    tell(
        f"{len(problems)} problems; "
        + ("mend them" if problems else f"next: harness run --benchmark {path} --method vprune")
    )
    return not problems


def _golden(folder: Path, json: bool) -> bool:
    from harness.cli.quiet import quiet_transformers
    from harness.validate.golden import validate_folder

    quiet_transformers()
    results = list(validate_folder(folder))
    rows = [asdict(result) for result in results]
    if json:
        print_json(rows)
    else:
        print_rows(rows, ("file", "status", "detail"))
    counts = {status: sum(result.status == status for result in results) for status in _STATUSES}
    tell("; ".join(f"{count} {words}" for words, count in zip(_STATUSES.values(), counts.values(), strict=True)))
    return not counts["fail"]


_STATUSES = {
    "pass": "pass",
    "fail": "fail",
    "weights": "are weights of others",
    "not_assertable": "cannot be asserted whole",
}


def _method(name: str, family: str, json: bool) -> bool:
    from harness.cli.quiet import quiet_transformers
    from harness.validate.contract import CHECKS, check_method

    quiet_transformers()
    families = _families(family)
    pruner = _built(name)
    results = [result for one in families for result in check_method(pruner, one)]
    rows = [{"method": pruner.name, **asdict(result)} for result in results]
    if json:
        print_json(rows)
    else:
        print_rows(rows, ("check", "family", "status", "detail"))
    failed = [result for result in results if result.status == "fail"]
    for result in failed:
        tell(f"{result.check} fails on {result.family}: {result.sentence}")
    refused = {result.family: result.detail for result in results if result.status == "unsupported"}
    for one, reason in refused.items():
        tell(f"{one} is unsupported: {reason}")
    passed = sum(result.status == "pass" for result in results)
    tell(f"{pruner.name}: {passed} of {len(CHECKS) * (len(families) - len(refused))} checks pass")
    return not failed


def _built(name: str) -> Pruner:
    """The method with its own settings. Raises UsageError for a file that cannot be imported or built."""
    import methods
    from harness.cli.method_errors import method_errors
    from harness.validate.contract import MISTAKES
    from methods.base import PruningError

    with method_errors():
        try:
            pruner = methods.build(name)
        except PruningError:
            raise
        except (SyntaxError, *MISTAKES) as mistake:
            raise UsageError(f"{name} cannot be built: {type(mistake).__name__}: {mistake}") from mistake
    if not getattr(pruner, "name", ""):
        raise UsageError(f'{name} has no name; write name = "..." in the class')
    return pruner


def _families(word: str) -> list[str]:
    from harness.errors import nearest
    from harness.validate.tiny import TINY

    if word == "all":
        return sorted(TINY)
    if word not in TINY:
        raise UsageError(f"unknown family {word!r}; nearest: {nearest(word, TINY)}; all means every one")
    return [word]
