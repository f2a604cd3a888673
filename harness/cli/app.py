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
    flops,
    import_,
    listing,
    new,
    profile,
    report,
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
app.command("new")(new.new)
app.command("run")(run.run)
app.command("sweep")(sweep.sweep)
app.command("bench")(bench.bench)
app.command("flops")(flops.flops)
app.command("list")(listing.list_)
app.command("show")(show.show)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("board")(board.board)
app.command("import")(import_.import_)
app.command("doctor")(doctor.doctor)
app.command("validate")(validate.validate)
app.command("submit")(submit.submit)
app.command("verify")(verify.verify)
app.command("train-adapter")(train_adapter.train_adapter)
app.add_typer(database.app, name="db")
app.add_typer(profile.app, name="profile")
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
