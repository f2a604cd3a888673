"""Nothing published is edited: papers' numbers against their checksums, submissions against git."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness.records.errors import UsageError
from harness.reference.suite import CHECKSUMS
from harness.submissions.folder import LATER_NAMES, Problem, shown


def published_problems(folder: Path) -> Iterator[Problem]:
    """Papers' numbers (results/published/*.csv) that are not those of SHA256SUMS beside them."""
    if not folder.is_dir():
        return
    listed = folder / CHECKSUMS
    sums = dict(line.split("  ", 1)[::-1] for line in listed.read_text().splitlines()) if listed.is_file() else {}
    files = {path.name: path for path in folder.glob("*.csv")}
    for name in sorted(sums.keys() | files.keys()):
        path = files.get(name)
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and not path.is_symlink() else None
        if found != sums.get(name):
            how = "is gone" if found is None else "was edited" if name in sums else "is not listed"
            yield Problem(
                f"published/{shown(name)}",
                f"it {how} ({CHECKSUMS}); if a paper's number was read wrongly, correct it and write the list again: "
                f"cd results/published && sha256sum *.csv > {CHECKSUMS}",
            )


def blobs_at(folder: Path, base: str) -> dict[str, str] | None:
    """Path below the submissions -> git's id of its content at `base`; None where git does not know the folder.

    Raises UsageError for a base that git does not know.
    """
    if _git(folder, "rev-parse", "--show-toplevel") is None:
        return None
    if _git(folder, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}", "--") is None:
        if base == "HEAD":
            return {}  # a repository without a commit
        raise UsageError(f"git knows no commit {base!r}; fetch it first, or give another --base")
    listed = _git(folder, "ls-tree", "-r", "-z", base, "--", ".") or ""
    entries = (entry.split("\t", 1) for entry in listed.split("\0") if entry)
    return {path: facts.split()[2] for facts, path in entries}


def edited(folder: Path, before: dict[str, str]) -> Iterator[Problem]:
    """Files of submissions that are not what they were. before: as `blobs_at` gives."""
    paths = [path for path in before if path != "README.md"]
    kept = [path for path in paths if (folder / path).is_file()]
    now = dict(zip(kept, _hashes(folder, kept), strict=True))
    for path in paths:
        if now.get(path) != before[path]:
            how = "was edited" if path in now else "is gone"
            yield Problem(shown(path), f"it {how}; what was submitted stays: submit a new run instead")


def own_additions(names: dict[str, list[str]], before: dict[str, str]) -> Iterator[Problem]:
    """Verifications, notes of code and retirements that arrive together with their runs. names: batch -> its files."""
    old = {path.split("/")[0] for path in before}
    for batch, files in names.items():
        for file in files:
            if batch not in old and any(pattern.fullmatch(file) for pattern in LATER_NAMES):
                yield Problem(
                    f"{batch}/{file}",
                    "a submission does not bring its own verification; commit the run first, then verify it",
                )


def _hashes(folder: Path, paths: list[str]) -> list[str]:
    if not paths:
        return []
    done = subprocess.run(
        ["git", "-C", str(folder), "hash-object", "--stdin-paths"],
        input="".join(f"{(folder / path).absolute()}\n" for path in paths),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
