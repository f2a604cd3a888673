"""`harness db rebuild`: remake the database from the run logs."""

from __future__ import annotations

import typer

from harness.cli import options
from harness.cli.printing import print_json, tell

app = typer.Typer(help="The store of runs.", no_args_is_help=True)


@app.callback()
def _keep_verbs() -> None:
    """The store of runs."""


@app.command("rebuild")
def rebuild(store: options.Store = None, json: options.Json = False) -> None:
    """Remake the database from the run logs beside it. The old one stays until the new one is whole."""
    from harness.cli.stores import open_store

    opened = open_store(store)
    runs = opened.rebuild()
    tell(f"{opened.path} holds {len(runs)} runs again, from {opened.log_folder}")
    if json:
        print_json({"store": str(opened.path), "runs": runs})
