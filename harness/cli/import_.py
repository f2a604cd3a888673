"""`harness import TOOL PATH`: other tools' results beside ours, as they report them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options
from harness.cli.printing import print_json, print_rows, tell


class Tool(StrEnum):
    """Whose files can be read."""

    lmms_eval = "lmms-eval"
    vlmevalkit = "vlmevalkit"


def import_(
    tool: Tool,
    path: Annotated[Path, typer.Argument(help="A result file, or a folder of them.", exists=True)],
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Read the result files of lmms-eval or VLMEvalKit. Such runs are shown and compared, never ranked."""
    from harness.cli.stores import open_store
    from harness.integrations import import_lmms_eval as lmms_eval
    from harness.integrations import vlmevalkit
    from harness.integrations.reported import keep

    readers = {Tool.lmms_eval: lmms_eval.read, Tool.vlmevalkit: vlmevalkit.read}
    opened = open_store(store)
    rows = [
        {
            "run_id": keep(one, opened),
            "model": one.model,
            "benchmark": one.benchmark,
            "n": one.n,
            "answers": len(one.answers),
            "metrics": dict(one.metrics),
        }
        for one in readers[tool](path)
    ]
    if json:
        print_json(rows)
    else:
        print_rows(rows, ("run_id", "model", "benchmark", "n", "answers", "metrics"))
    without = sum(not row["answers"] for row in rows)
    tell(f"{len(rows)} runs as reported by {tool.value}, {without} of them without answers; they are never ranked")
