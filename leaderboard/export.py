"""The board as a static site, `python -m leaderboard.export STORE DIR [RESULTS]`: a page for each choice.

Anyone can host the folder, or open index.html from disk; it asks nothing from outside. Plotly lies beside the pages.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from plotly.offline import get_plotlyjs

from harness.records.errors import HarnessError
from harness.records.published import printings
from harness.report.gather import FULL, Group
from harness.store.lookup import name_of
from leaderboard.blocks import Block
from leaderboard.data import Board, full_of, group_of, open_board
from leaderboard.palette import mark_of
from leaderboard.questions import question_of
from leaderboard.ranking import budgets_of
from leaderboard.render_html import page
from leaderboard.sources import folders
from leaderboard.suites import suite_group, suites_of
from leaderboard.views import compare, latency, method, overview, pareto, profile, published, samples, submit

SAMPLES = 6  # questions a run that are shown, those that pruning lost first
HERE = Path(__file__).resolve().parent / "static"
TITLES = ("Overview", "Pareto", "Method", "Compare", "Samples", "Latency", "Profile", "Published", "Submit")


@dataclass(frozen=True)
class Sheet:
    """One page of the site. choices: the words of its filters, from the first to the last."""

    title: str
    choices: tuple[str, ...]
    blocks: Sequence[Block]


def export(store: Path, folder: Path, results: Path | None = None) -> int:
    """Write the site; gives the number of pages. Raises HarnessError as `open_board` does, and for a full folder."""
    board = open_board(store, results)
    if folder.exists() and any(folder.iterdir()) and not (folder / "board.css").is_file():
        raise HarnessError(f"{folder} holds something else; give an empty folder, or one that held a board")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.html"):
        old.unlink()
    (folder / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    shutil.copyfile(HERE / "board.js", folder / "board.js")
    (folder / "board.css").write_text("".join((HERE / name).read_text() for name in ("site.css", "board.css")))
    made = list(sheets(board))
    names = numbered(made)
    first = {sheet.title: name for sheet, name in reversed(list(zip(made, names, strict=True)))}
    for sheet, name in zip(made, names, strict=True):
        beside = [(one.choices, at) for one, at in zip(made, names, strict=True) if one.title == sheet.title]
        text = page(
            sheet.title, sheet.choices, sheet.blocks, [(title, first[title]) for title in TITLES], beside, folder
        )
        (folder / name).write_text(text, encoding="utf-8")
    return len(made)


def numbered(made: Sequence[Sheet]) -> list[str]:
    """A file name for each sheet: the first is the index, the others are numbered."""
    return ["index.html", *(f"{sheet.title.lower()}-{at}.html" for at, sheet in enumerate(made[1:], 2))]


def sheets(board: Board) -> Iterator[Sheet]:
    """Every page for every choice worth a page."""
    groups = {name: group_of(board, name) for name in board.groups}
    offered = {**groups, **{name: suite_group(board, choice) for name, choice in suites_of(board).items()}}
    for name, group in offered.items():
        for budget in budgets_of(group.lines) or [None]:
            yield Sheet("Overview", (name, budget or "no budget"), list(overview.blocks(board, group, budget)))
    for name, group in offered.items():
        for cost in pareto.COSTS:
            yield Sheet("Pareto", (name, cost), list(pareto.blocks(board, name, group, cost)))
    for name, group in groups.items():
        for chosen in method.methods_of(group) or [None]:
            yield Sheet("Method", (name, chosen or "none"), list(method.blocks(group, chosen)))
    for name, group in groups.items():
        yield from _compared(board, name, group)
    yield from _sampled(board, groups)
    for name, group in groups.items():
        for machine in latency.machines_of(group) or [None]:
            yield Sheet("Latency", (name, machine or "no machine"), list(latency.blocks(board, group, machine, "all")))
    for chosen, folder in (folders(board.path) or {"none": None}).items():
        yield Sheet("Profile", (chosen,), list(profile.blocks(folder, board.path)))
    yield Sheet("Published", (), list(published.blocks(printings(), printings())))
    yield Sheet("Submit", (), list(submit.blocks()))


def _compared(board: Board, name: str, group: Group) -> Iterator[Sheet]:
    """Every run against no pruning."""
    full = full_of(group)
    others = [line.run for line in group.lines if line is not full]
    if full is None or not others:
        yield Sheet("Compare", (name, "none"), list(compare.blocks(board, group, None, None)))
    for run in others if full else []:
        words = name_of(run) + (f" seed {run['seed']}" if run["seed"] else "")
        yield Sheet("Compare", (name, words), list(compare.blocks(board, group, full.run, run)))


def _sampled(board: Board, groups: dict[str, Group]) -> Iterator[Sheet]:
    """A few questions of every run of a method that is no control, where the images are at hand."""
    found = False
    for name, group in groups.items():
        for line in group.lines:
            run = line.run
            if run["method"] == FULL or mark_of(run["method"]).control:
                continue
            lost = samples.samples_of(board, group, run, "lost by pruning")
            ids = list(dict.fromkeys([*lost, *samples.samples_of(board, group, run, "all")]))
            shown = [one for one in ids if question_of(run["benchmark"], one)][:SAMPLES]
            for one in shown:
                found = True
                yield Sheet("Samples", (name, name_of(run), one), list(samples.blocks(board, group, run, one)))
    if not found and groups:
        yield Sheet("Samples", ("none",), list(samples.blocks(board, next(iter(groups.values())), None, None)))


def main() -> None:
    """The command line: STORE DIR [RESULTS]."""
    store, folder, *results = map(Path, sys.argv[1:4])
    try:
        count = export(store, folder, *results)
    except HarnessError as problem:
        print(f"harness: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
    print(f"harness: wrote {count} pages; open {folder / 'index.html'}", file=sys.stderr)


if __name__ == "__main__":
    main()
