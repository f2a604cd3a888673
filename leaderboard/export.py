"""The board as a static site, `python -m leaderboard.export STORE DIR [RESULTS]`: a page for each choice.

Anyone can host the folder, or open index.html from disk; it asks nothing from outside. Plotly lies beside the pages.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from plotly.offline import get_plotlyjs

from harness.records.errors import HarnessError
from harness.records.published import printings
from harness.records.records import FULL
from harness.report.blocks import Block, File, Markup, html_of, join, tag
from harness.report.gather import Group
from harness.report.page import BOARD_STYLE, PAGE_STYLE
from harness.report.palette import mark_of
from harness.store.lookup import name_of
from leaderboard.data import Board, group_of, open_board
from leaderboard.sources import folders
from leaderboard.suites import suite_group, suites_of
from leaderboard.views import compare, latency, method, overview, pareto, profile, published, samples, submit

SAMPLES = 6  # questions a run that are shown, those that pruning lost first
SCRIPT = Path(__file__).resolve().parent / "static" / "board.js"
_META = (
    '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"connect-src 'none'; object-src 'none'; frame-src 'none'; "
    "form-action 'none'; img-src data: blob:\">"
    '<link rel="stylesheet" href="board.css"><script src="plotly.min.js"></script>'
    '<script src="board.js" defer></script>'
)


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
    shutil.copyfile(SCRIPT, folder / "board.js")
    (folder / "board.css").write_text("".join(style.read_text("utf-8") for style in (PAGE_STYLE, BOARD_STYLE)))
    made = list(sheets(board))
    names = ["index.html", *(f"{sheet.title.lower()}-{at}.html" for at, sheet in enumerate(made[1:], 2))]
    beside: dict[str, dict[tuple[str, ...], str]] = {}  # title -> choices -> file
    for sheet, name in zip(made, names, strict=True):
        beside.setdefault(sheet.title, {}).setdefault(sheet.choices, name)
    first = {title: next(iter(files.values())) for title, files in beside.items()}
    for sheet, name in zip(made, names, strict=True):
        (folder / name).write_text(_page(sheet, first, beside[sheet.title], folder), encoding="utf-8")
    return len(made)


def sheets(board: Board) -> Iterator[Sheet]:
    """Every page for every choice worth a page."""
    groups = {name: group_of(board, name) for name in board.groups}
    offered = {**groups, **{name: suite_group(board, choice) for name, choice in suites_of(board).items()}}
    for name, group in offered.items():
        for budget in group.budgets or [None]:
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
    others = [line.run for line in group.lines if line is not group.full]
    if group.full is None or not others:
        yield Sheet("Compare", (name, "none"), list(compare.blocks(board, group, None, None)))
    for run in others if group.full else []:
        words = name_of(run) + (f" seed {run['seed']}" if run["seed"] else "")
        yield Sheet("Compare", (name, words), list(compare.blocks(board, group, group.full.run, run)))


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
            shown = [one for one in ids if samples.question_of(run["benchmark"], one)][:SAMPLES]
            for one in shown:
                found = True
                yield Sheet("Samples", (name, name_of(run), one), list(samples.blocks(board, group, run, one)))
    if not found and groups:
        yield Sheet("Samples", ("none",), list(samples.blocks(board, next(iter(groups.values())), None, None)))


def _page(sheet: Sheet, first: dict[str, str], beside: dict[tuple[str, ...], str], folder: Path) -> str:
    """A whole page. first: title -> file, for the navigation; beside: choices -> file of the same page's sheets."""
    save = partial(_saved, folder, "-".join([sheet.title.lower(), *sheet.choices]))
    body = join(
        tag("nav", tag("b", "Visual-token pruning"), *(_link(title, at, sheet.title) for title, at in first.items())),
        tag(
            "main",
            tag("h1", sheet.title),
            *_choices(sheet.choices, beside),
            *(html_of(one, save) for one in sheet.blocks),
        ),
    )
    head = tag("head", Markup(_META), tag("title", f"{sheet.title}: visual-token pruning"))
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _saved(folder: Path, prefix: str, file: File) -> str:
    """Write a file that a page offers; gives its name in the folder."""
    name = "".join(sign if sign.isalnum() or sign in "-." else "-" for sign in f"{prefix}-{file.name}")
    (folder / name).write_text(file.text, encoding="utf-8")
    return name


def _link(words: str, file: str, here: str) -> Markup:
    return tag("a", words, href=file, **({"class_": "here"} if words == here else {}))


def _choices(choices: tuple[str, ...], beside: dict[tuple[str, ...], str]) -> Iterator[Markup]:
    """A row of links for each filter: to the sheet that differs in this filter alone, else to the nearest with it."""
    for at, chosen in enumerate(choices):
        found: dict[str, str] = {}
        for other, file in sorted(beside.items(), key=lambda one: -_agreement(one[0], choices, at)):
            found.setdefault(other[at], file)
        offered = dict.fromkeys(other[at] for other in beside if other[:at] == choices[:at])
        yield tag("p", *(_link(words, found[words], chosen) for words in offered), class_="choices")


def _agreement(other: Sequence[str], choices: Sequence[str], but: int) -> int:
    return sum(a == b for at, (a, b) in enumerate(zip(other, choices, strict=True)) if at != but)


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
