"""Submit: how a method, or a result, gets onto a board."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.blocks import Block, Code, Heading, Paragraph, Prose
from leaderboard.data import Board
from leaderboard.render_streamlit import draw


def show(board: Board) -> None:
    """The page."""
    draw(blocks())


def blocks() -> Iterator[Block]:
    """Commands to type, in order."""
    yield Heading("A method of yours")
    yield Prose(
        "One file: a dataclass with the hook points it uses, as in `methods/`. "
        "`docs/methods.md` shows what others declare."
    )
    yield Code("harness validate ./my_pruner.py\nharness run --method ./my_pruner.py --budget 50%")
    yield Paragraph(
        "The run brings its own controls: no pruning and random choice on the same questions. It is on this board "
        "as soon as it has ended."
    )
    yield Heading("A result that others can check")
    yield Prose(
        "Every answer, the tokens that entered each layer, the machine and the hash of the code go into small files in "
        "`results/submissions/`; send them as a pull request (`docs/submitting.md`). They are listed as "
        "*self-reported*; when somebody has repeated a part of a run and found the same, as *verified*, and ranked "
        "beside the runs of this store."
    )
    yield Code(
        "harness submit fastv:50%\nharness validate results/submissions\nharness verify results/submissions/BATCH"
    )
    yield Heading("Results of other tools")
    yield Code("harness import lmms-eval logs\nharness import vlmevalkit outputs")
    yield Paragraph("Scores of lmms-eval and VLMEvalKit are listed as self-reported: nobody measured their budget.")
    yield Heading("What is ranked")
    yield Prose(
        "* Realised tokens must meet the budget **in every sample**, counted while the model runs.\n"
        "* Accuracy has an interval; methods that cannot be told apart share their rank.\n"
        "* Times are compared only within one machine and one process, in turns with no pruning."
    )
