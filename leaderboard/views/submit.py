"""Submit: how a method, or a result, gets onto a board."""

from __future__ import annotations

from collections.abc import Iterator

from leaderboard.blocks import Block, Code, Heading, Prose, Words
from leaderboard.data import Board
from leaderboard.drawing import draw


def show(board: Board) -> None:
    """The page."""
    draw(blocks())


def blocks() -> Iterator[Block]:
    """What to type, in order."""
    yield Heading("A method of yours")
    yield Prose(
        "One file: a dataclass with the hook points it uses, as in `methods/`. "
        "`docs/methods.md` shows what others declare."
    )
    yield Code("harness validate ./my_pruner.py\nharness run --method ./my_pruner.py --budget 50%")
    yield Words(
        "The run brings its own controls: no pruning and random choice on the same questions. It is on this board "
        "as soon as it has ended."
    )
    yield Heading("A result that others can check")
    yield Prose(
        "Hand on the run's log, `X.runs/RUN.jsonl` beside the store `X.duckdb`: every answer, every kept mask, the "
        "machine and the hash of the code, each line with its checksum. Whoever gets it puts it into the folder of "
        "their own store:"
    )
    yield Code("harness db rebuild")
    yield Heading("Results of other tools")
    yield Code("harness import results.json")
    yield Words("Scores of lmms-eval and VLMEvalKit are listed as self-reported: nobody measured their budget.")
    yield Heading("What is ranked")
    yield Prose(
        "* Realised tokens must meet the budget **in every sample**, counted while the model runs.\n"
        "* Accuracy has an interval; methods that cannot be told apart share their rank.\n"
        "* Times are compared only within one machine and one process, in turns with no pruning."
    )
