"""`harness submit`: finished runs as small files that others can check."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options
from harness.cli.printing import print_json, tell
from harness.records.errors import UsageError

if TYPE_CHECKING:
    from harness.submissions.writing import Written

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Ids, their beginnings, or METHOD[:PRESET][:BUDGET]; none: the newest of each cell that can be.",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Where batches lie. Default: results/submissions.")
]


def submit(
    runs: Runs = None,
    out: Out = None,
    store: options.Store = None,
    data_dir: options.DataDir = None,
    json: options.Json = False,
) -> None:
    """Write finished runs and their controls for others to check; exit 1 and nothing written if one is refused."""
    from harness.cli.stores import open_store
    from harness.submissions.eligibility import choose
    from harness.submissions.writing import write

    folder = out or default_folder()
    if folder.name != "submissions":
        raise UsageError(f"batches lie in a folder named submissions; use --out {folder / 'submissions'}")
    chosen, refused = choose(open_store(store), runs or ())
    for one in refused:
        tell(f"refused: {one}")
    if refused and runs:
        raise typer.Exit(1)
    if not chosen:
        tell("no run can be submitted; make one: harness run --method fastv --budget 50%")
        raise typer.Exit(1)
    written, told = write(chosen, folder, data_dir)
    for words in told:
        tell(words)
    if json:
        print_json([{"path": str(one.path), "runs": dict(map(reversed, one.runs))} for one in written])
    for one in written:
        _tell_batch(one, json)
    if written:
        _tell_next(written, folder)


def default_folder() -> Path:
    """results/submissions of the checkout that the working directory lies in, else below the working directory."""
    from harness.store.database import default_store_path

    path = default_store_path().parent / "submissions"
    return path if path.parent.name == "results" else Path("results") / "submissions"


def _tell_batch(one: Written, json: bool) -> None:
    if not json:
        print(one.path)
        for name, run_id in one.runs:
            print(f"  {run_id}  {name}")
    size = sum((one.path / name).stat().st_size for name in one.files)
    tell(f"{len(one.runs)} runs, {size / 1000:.0f} kB, all checks passed")


def _tell_next(written: list[Written], folder: Path) -> None:
    paths = [str(one.path) for one in written]
    branch = f"submit-{written[0].path.name}"
    tell("next, in a clone of the repository that holds these files:")
    tell(f"  git switch -c {branch}")
    tell(f"  git add {shlex.join(paths)}")
    tell(f"  git commit -m {shlex.quote(f'Submit {written[0].path.name}')}")
    tell(f"  git push -u origin {branch}")
    tell(f"check it as the maintainers will: harness validate {folder}")
    if any(".py" in name for one in written for name, _ in one.runs):
        tell(
            "a method of your own file: add the file itself to methods/ in the same pull request, so that it can be run"
        )
