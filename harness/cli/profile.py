"""`harness profile show`: where the time of a traced run went."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options
from harness.cli.printing import print_json, print_rows, tell

app = typer.Typer(help="Traces that `harness run --profile DIR` wrote.", no_args_is_help=True)
STAGE_COLUMNS = ("arm", "stage", "ms", "measured_ms", "traced_ms")
OPERATOR_COLUMNS = ("arm", "name", "stage", "calls", "ms", "share")


@app.callback()
def _keep_verbs() -> None:
    """Traces that `harness run --profile DIR` wrote."""


@app.command("show")
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What --profile was given.")],
    top: Annotated[int, typer.Option(min=1, help="Operators to name in each arm.")] = 10,
    json: options.Json = False,
) -> None:
    """Show the time of each stage and the operators that took most, per prefill."""
    from harness.latency.traces import read_profile

    found = read_profile(folder, top)
    if json:
        print_json(asdict(found))
        return
    print_rows([{"arm": arm, **asdict(row)} for arm, rows in found.stages.items() for row in rows], STAGE_COLUMNS)
    print()
    print_rows([{"arm": arm, **asdict(row)} for arm, rows in found.operators.items() for row in rows], OPERATOR_COLUMNS)
    tell(f"{found.title}, shape {found.shape_key}, medians per prefill")
    tell("ms: the trace without the profiler's own time; measured_ms: by a clock, without the profiler")
    tell(f"next: https://ui.perfetto.dev opens {folder}/*/*.pt.trace.json")
    tell(f'next: tensorboard --logdir {folder}    (needs pip install "visual-token-pruning[profile]")')
