"""`harness compare A B`: two runs, question by question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options
from harness.cli.printing import print_json, print_rows, tell

if TYPE_CHECKING:
    from harness.report.compare import Versus
    from harness.stats import Interval

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or its beginning, or METHOD[:PRESET][:BUDGET].")]


def compare(
    a: Run,
    b: Run,
    fail_below: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Exit 1 if B's accuracy minus A's is below this, e.g. -0.5 points."),
    ] = None,
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Compare run B with run A on the same samples: difference, flips, a verdict in words."""
    from harness.cli.stores import open_store
    from harness.report.compare import document, find_pair, samples_of, versus

    opened = open_store(store)
    pair = find_pair(opened, a, b)
    found = versus(*pair, samples_of(opened, pair))
    if json:
        print_json(document(found))
    else:
        _print(found)
    for note in found.notes:
        tell(note)
    if fail_below is not None and found.difference.value * 100 < fail_below:
        tell(f"{found.difference.value * 100:+.2f} points is below {fail_below:+g}")
        raise typer.Exit(1)


def _print(found: Versus) -> None:
    """The table on stdout: one column a run, and what the two say of each other under the second."""
    from harness.store.lookup import name_of

    a, b, flips = found.a, found.b, found.flips
    rows = [
        ("run", a["run_id"], b["run_id"]),
        ("samples", a["n"], f"{b['n']} on {found.difference.clusters} images"),
        ("accuracy %", f"{a['accuracy'] * 100:.1f}", f"{b['accuracy'] * 100:.1f}"),
        ("  B - A, points [95 %]", "", _interval(found.difference, "+.2f")),
        ("  smallest difference found 4 times in 5", "", f"{found.detectable * 100:.2f}"),
        ("  p (McNemar, by image)", "", f"{found.p:.2g}"),
        ("RA %, B / A [95 %]", "", _interval(found.ra, ".1f")),
        ("flips", "", f"{flips.lost} lost, {flips.gained} gained, {flips.same} neither"),
        ("loyalty %, same answer [95 %]", "", _interval(found.loyal, ".1f")),
        ("visual tokens a layer", *("–" if (k := run["realised_tokens"]) is None else f"{k:.1f}" for run in (a, b))),
    ]
    columns = ("", f"A: {name_of(a)}", f"B: {name_of(b)}")
    print_rows([dict(zip(columns, map(str, row), strict=True)) for row in rows], columns)
    print(f"\n{found.verdict}")


def _interval(found: Interval, style: str) -> str:
    if found.value != found.value:
        return f"– ({found.how})"
    value, low, high = (format(share * 100, style) for share in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"
