"""`harness show RUN|METHOD`: everything known of a run, or what a method says of itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from harness.cli import options
from harness.cli.printing import plain, print_json, print_rows, tell
from harness.records.errors import UnknownRun


def show(
    name: Annotated[str, typer.Argument(metavar="RUN|METHOD", help="A run's id or its beginning, or a method.")],
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Show a run of the store, or a method and its runs."""
    import methods

    if name in {*methods.names(), *methods.plugins()} or ".py" in name:
        _method(name, store, json)
        return
    found = _run(name, store)
    if json:
        print_json(found)
    else:
        print_rows([{"": key, "value": value} for key, value in plain(found).items()], ("", "value"))


def _method(name: str, store: options.Store, json: bool) -> None:
    """A method's card, its runs, and whether they beat random."""
    from dataclasses import asdict

    import methods
    from harness.authoring.cards import card_of, entry
    from harness.cli.method_errors import method_errors
    from harness.cli.stores import open_store
    from harness.records.provenance import recorded_method
    from harness.report.compare import verdicts

    with method_errors():
        card = card_of(methods.get(name))
    opened, recorded = open_store(store), recorded_method(name)
    judged = verdicts(opened, recorded)
    if json:
        runs = opened.runs()
        ids = list(runs[runs["method"] == recorded]["run_id"])
        print_json({**asdict(card), "runs": ids, "against_random": judged})
        return
    print(entry(card))
    if judged:
        print("Against random, accuracy as a share, 95 %:")
        print_rows(judged, ("budget", "model", "benchmark", "accuracy", "over_random", "low", "high", "verdict"))
    else:
        tell(f"no run of {card.name} beside a random one yet: harness run --method {recorded} --budget 50%")


def _run(name: str, store: options.Store) -> dict[str, Any]:
    from harness.cli.stores import open_store

    opened = open_store(store)
    try:
        row = opened.run(name)
    except UnknownRun as error:
        import methods
        from harness.records.errors import nearest

        raise UnknownRun(f"{error}; nearest methods: {nearest(name, methods.names())}") from error
    failures = opened.query(
        "SELECT sample_id, error FROM samples WHERE run_id = ? AND error IS NOT NULL ORDER BY sample_id",
        [row["run_id"]],
    )
    return {**row, "log": str(opened.log_path(row["run_id"])), "failures": failures.to_dict("records")}
