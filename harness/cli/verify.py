"""`harness verify`: part of a submitted run answered again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options
from harness.cli.printing import print_json, tell

Submission = Annotated[
    Path, typer.Argument(metavar="SUBMISSION", help="A batch, results/submissions/BATCH, or a RUN.json in it.")
]
Samples = Annotated[int, typer.Option(min=1, help="Questions of each run that are answered again.")]
DrawSeed = Annotated[int, typer.Option(min=0, help="Which questions: choose one that nobody could foresee.")]
MethodFile = Annotated[str | None, typer.Option("--method", help="The file of a method that is not in methods/.")]
OtherModel = Annotated[str | None, typer.Option("--model", help="Where the model lies, if not under its own name.")]
OtherDevice = Annotated[str | None, typer.Option("--device", help="Where to run. Default: as the run did.")]


def verify(
    submission: Submission,
    samples: Samples = 20,
    seed: DrawSeed = 0,
    method: MethodFile = None,
    model: OtherModel = None,
    device: OtherDevice = None,
    data_dir: options.DataDir = None,
    json: options.Json = False,
) -> None:
    """Answer a sample of a submission's questions again, and mark it verified where answers and counts are the same.

    Exit 1 where they are not: what differs is told, and kept beside the submission.
    """
    from harness.cli.method_errors import method_errors
    from harness.cli.progress import Bar
    from harness.integrations.lmms_eval.opening import SOURCES
    from harness.models.quiet import quiet_transformers
    from harness.submissions.verifying import claims_of, repeat, write_verification

    claims = claims_of(submission)
    quiet_transformers()
    folder = submission if submission.is_dir() else submission.parent
    sources, found = SOURCES.opened_once(), []
    for claim in claims:
        with method_errors():
            one = repeat(
                claim,
                Bar(),
                method=method,
                model=model,
                samples=samples,
                seed=seed,
                sources=sources,
                data_dir=data_dir and Path(data_dir),
                device=device,
            )
        write_verification(folder, one)
        found.append(one)
        for words in one.differences[:10]:
            tell(f"{one.name}: {words}")
        if one.other_code:
            tell(f"{one.name}: the code that gives answers has changed since; FLOPs were not compared")
        counts = "{same_answers} answers and {same_tokens} token counts of {repeated} are the same"
        tell(f"{one.name} ({one.run_id[:8]}): {_verdict(one.agreed)}; {counts.format(**one.document)}")
    if json:
        print_json([{**one.document, "differences": list(one.differences)} for one in found])
    if not all(one.agreed for one in found):
        raise typer.Exit(1)


def _verdict(agreed: bool) -> str:
    return "verified" if agreed else "NOT CONFIRMED"
