"""`harness validate`: a method against the contract that all methods keep, or golden files against their authors.

What is judged follows from the argument; each kind of it has one function here that does it and prints. A method file
runs in a process of its own with limits, so that one may be judged before it is trusted.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import options
from harness.cli.printing import print_json, print_rows, tell
from harness.records.errors import UsageError


def is_results(what: str) -> bool:
    """True for a folder of results and for paths within its submissions."""
    from harness.submissions.folder import SUBMISSIONS

    path = Path(what)
    inside = SUBMISSIONS in path.absolute().parts and path.exists()
    return inside or (path.is_dir() and any((path / name).is_dir() for name in (SUBMISSIONS, "published")))


def validate_results(path: Path, base: str, data_dir: Path | None, json: bool) -> bool:
    """Check and print; whether all is well."""
    from harness.submissions.folder import SUBMISSIONS, submissions_folder
    from harness.submissions.folder_checks import check_results

    folder = path / SUBMISSIONS if (path / "published").is_dir() else submissions_folder(path)
    below = (
        path.absolute().relative_to(folder.absolute()).parts
        if path.absolute().is_relative_to(folder.absolute())
        else ()
    )
    found = check_results(folder, below[0] if below else None, base, data_dir)
    if json:
        problems = [{"where": one.where, "problem": one.what} for one in found.problems]
        counts = {"batches": found.batches, "runs": found.runs, "retired": found.retired}
        print_json({**counts, "problems": problems, "notes": list(found.notes)})
    for note in found.notes:
        tell(f"note: {note}")
    for problem in found.problems:
        tell(str(problem))
    retired = f" ({found.retired} retired)" if found.retired else ""
    tell(f"{found.runs} runs{retired} in {found.batches} batches: {len(found.problems) or 'no'} problems")
    return not found.problems


What = Annotated[
    str | None,
    typer.Argument(
        metavar="[METHOD|PATH]",
        help="NAME, NAME:PRESET, or a path: ./mine.py[:Class]; your own questions: ./mine.jsonl, or their folder; "
        "submissions: results, or a batch or file in it.",
    ),
]
Golden = Annotated[Path | None, typer.Option("--golden", metavar="DIR", help="A folder of golden .npz files.")]
FamilyName = Annotated[str, typer.Option("--family", help="A model family, or all.")]
Base = Annotated[
    str, typer.Option("--base", metavar="COMMIT", help="Submissions of this commit must still be there, unchanged.")
]
Unconfined = Annotated[
    bool, typer.Option("--unconfined", help="Run a file that you trust in this process, for a debugger.")
]


def validate(
    what: What = None,
    golden: Golden = None,
    family: FamilyName = "all",
    unconfined: Unconfined = False,
    base: Base = "HEAD",
    data_dir: options.DataDir = None,
    json: options.Json = False,
) -> None:
    """Check a method on tiny models, golden files, questions, or submissions. Exit 1 if a check fails.

    A method file is judged in a process of its own, with limits on time, memory, files and network.
    """
    if (what is None) == (golden is None):
        raise UsageError("give either a method (name or path) or --golden DIR, such as --golden tests/golden")
    if golden is not None:
        passed = _golden(golden, json)
    elif is_results(what):
        passed = validate_results(Path(what), base, data_dir and Path(data_dir), json)
    else:
        passed = _questions(Path(what), json) if _is_questions(what) else _method(what, family, unconfined, json)
    if not passed:
        raise typer.Exit(1)


def _is_questions(what: str) -> bool:
    from harness.benchmarks.registry import is_own

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
    from harness.models.quiet import quiet_transformers
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


CONDUCT = {"check": "conduct", "sentence": "A method computes within its limits and reaches for nothing else."}
_STATUSES = {
    "pass": "pass",
    "fail": "fail",
    "weights": "are weights of others",
    "not_assertable": "cannot be asserted whole",
}


def _method(name: str, family: str, unconfined: bool, json: bool) -> bool:
    families = _families(family)
    rows = _here(name, families) if unconfined or ".py" not in name else _confined(name, families)
    if json:
        print_json(rows)
    else:
        print_rows(rows, ("check", "family", "status", "detail"))
    failed = [row for row in rows if row["status"] == "fail"]
    for row in failed:
        tell(f"{row['check']} fails on {row['family']}: {row['sentence']}")
    refused = {row["family"]: row["detail"] for row in rows if row["status"] == "unsupported"}
    for one, why in refused.items():
        tell(f"{one} is unsupported: {why}")
    passed, asked = (sum(row["status"] in words for row in rows) for words in (("pass",), ("pass", "fail")))
    tell(f"{rows[0]['method']}: {passed} of {asked} checks pass")
    return not failed


def _here(name: str, families: list[str]) -> list[dict[str, Any]]:
    """Every check as a row, from this process."""
    from harness.models.quiet import quiet_transformers
    from harness.validate.contract import check_method
    from harness.validate.contract.subject import built

    quiet_transformers()
    pruner = built(name)
    results = [result for family in families for result in check_method(pruner, family)]
    return [{"method": pruner.name, **asdict(result)} for result in results]


def _confined(name: str, families: list[str]) -> list[dict[str, Any]]:
    """The same from a process with limits; what stopped it, if something did, is a row as well."""
    from harness.validate.sandbox import has_walls, judge_files

    if not has_walls():
        tell("this system lends no namespace (unshare): the network is refused to Python code only")
    (verdict,) = judge_files([name], families)
    if verdict.printed:
        tell(f"{name} printed:\n{verdict.printed}")
    if verdict.how == "unbuildable":
        raise UsageError(verdict.reason)
    rows = [dict(row) for row in verdict.rows]
    if verdict.reason:
        rows.append({"method": name, "family": "any", "status": "fail", "detail": verdict.reason, **CONDUCT})
    return rows


def _families(word: str) -> list[str]:
    from harness.models.families.registry import FAMILIES
    from harness.records.errors import nearest

    if word == "all":
        return list(FAMILIES)
    if word not in FAMILIES:
        raise UsageError(f"unknown family {word!r}; nearest: {nearest(word, FAMILIES)}; all means every one")
    return [word]
