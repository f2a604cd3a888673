"""The verbs put together, and the one place where an error becomes a line on stderr and an exit code."""

from __future__ import annotations

import sys

import typer

from harness.cli import (
    bench,
    board,
    compare,
    database,
    doctor,
    export,
    flops,
    import_,
    listing,
    new,
    profile,
    run,
    show,
    submit,
    sweep,
    train_adapter,
    validate,
    verify,
)
from harness.cli.examples import show_examples
from harness.records.errors import HarnessError

app = typer.Typer(
    name="harness",
    help="Benchmark visual-token pruners at equal budget on the same machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PANELS = {
    "Run": {"run": run.run, "sweep": sweep.sweep},
    "Look": {
        "list": listing.list_,
        "show": show.show,
        "compare": compare.compare,
        "board": board.board,
        "export": export.export,
    },
    "Contribute": {
        "new": new.new,
        "validate": validate.validate,
        "submit": submit.submit,
        "verify": verify.verify,
        "import": import_.import_,
    },
    "Measure": {"bench": bench.bench, "flops": flops.flops, "profile": profile.app},
    "Maintain": {"train-adapter": train_adapter.train_adapter, "db": database.app, "doctor": doctor.doctor},
}
for panel, verbs in PANELS.items():
    for name, verb in verbs.items():
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(verb)
show_examples(app)


@app.callback()
def _keep_verbs() -> None:
    """Benchmark visual-token pruners at equal budget on the same machine."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 usage, 3 environment, 4 store locked, 130 interrupted."""
    try:
        app()
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
