"""`harness verify`: part of a submitted run answered again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options
from harness.cli.printing import print_json, tell
from harness.records.errors import UsageError

Submission = Annotated[
    Path,
    typer.Argument(
        metavar="SUBMISSION",
        help="A batch, results/submissions/BATCH, or a RUN.json in it; with --reidentify results as well.",
    ),
]
Samples = Annotated[
    int | None, typer.Option(min=1, help="Questions of each run that are answered again: 20, with --reidentify 50.")
]
DrawSeed = Annotated[int, typer.Option(min=0, help="Which questions: choose one that nobody could foresee.")]
MethodFile = Annotated[str | None, typer.Option("--method", help="The file of a method that is not in methods/.")]
OtherModel = Annotated[str | None, typer.Option("--model", help="Where the model lies, if not under its own name.")]
OtherDevice = Annotated[str | None, typer.Option("--device", help="Where to run. Default: as the run did.")]
Reidentify = Annotated[
    bool,
    typer.Option("--reidentify", help="Runs of older code: note that today's answers the same, or retire them."),
]
Part = Annotated[
    str, typer.Option(metavar="K/N", help="With --reidentify: the K-th of N shares of the runs, a process for each.")
]


def verify(
    submission: Submission,
    samples: Samples = None,
    seed: DrawSeed = 0,
    method: MethodFile = None,
    model: OtherModel = None,
    device: OtherDevice = None,
    data_dir: options.DataDir = None,
    reidentify: Reidentify = False,
    part: Part = "1/1",
    json: options.Json = False,
) -> None:
    """Answer a sample of a submission's questions again, and mark it verified where answers and counts are the same.

    Exit 1 where they are not: what differs is told, and kept beside the submission.
    """
    if reidentify:
        if method or model or device:
            raise UsageError("--reidentify answers as the runs did; leave out --method, --model and --device")
        _reidentify(submission, samples, seed, part, data_dir, json)
        return
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
                samples=samples or 20,
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


def _reidentify(path: Path, samples: int | None, seed: int, part: str, data_dir: Path | None, json: bool) -> None:
    from harness.cli.progress import Bar
    from harness.integrations.lmms_eval.opening import SOURCES
    from harness.models.quiet import quiet_transformers
    from harness.submissions.later_checks import QUESTIONS
    from harness.submissions.reidentifying import reidentify

    if (samples or QUESTIONS) < QUESTIONS:
        raise UsageError(f"--reidentify answers at least {QUESTIONS} questions of each run, got --samples {samples}")
    quiet_transformers()
    found, left = [], list[str]()
    for one in reidentify(
        path,
        Bar(),
        questions=samples or QUESTIONS,
        seed=seed,
        part=_part(part),
        sources=SOURCES.opened_once(),
        data_dir=data_dir,
        left=left.append,
    ):
        found.append(one)
        for words in one.differences[:10]:
            tell(f"{one.name}: {words}")
        counts = "{same_answers} answers, {same_tokens} token counts and {same_flops} FLOPs of {repeated} are the same"
        verdict = "current" if one.agreed else "RETIRED"
        tell(f"{one.name} ({one.run_id[:8]}): {verdict}; {counts.format(**one.document)}")
    for words in left:
        tell(words)
    if json:
        print_json([{**one.document, "differences": list(one.differences)} for one in found])
    agreed = sum(one.agreed for one in found)
    tell(f"{agreed} runs are current again, {len(found) - agreed} retired, {len(left)} stay stale")
    if agreed < len(found) or left:
        raise typer.Exit(1)


def _part(word: str) -> tuple[int, int]:
    """(K, N) of "K/N". Raises UsageError."""
    k, slash, n = word.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise UsageError(f"--part takes K/N with K from 1 to N, such as 1/2; got {word!r}")
    return int(k), int(n)
