"""`harness validate results`: what `harness validate` does when it is given submissions."""

from __future__ import annotations

from pathlib import Path

from harness.cli.printing import print_json, tell


def is_results(what: str) -> bool:
    """Whether an argument is a folder of results, or something within its submissions."""
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
        print_json({"batches": found.batches, "runs": found.runs, "problems": problems, "notes": list(found.notes)})
    for note in found.notes:
        tell(f"note: {note}")
    for problem in found.problems:
        tell(str(problem))
    tell(f"{found.runs} runs in {found.batches} batches: {len(found.problems) or 'no'} problems")
    return not found.problems
