"""The flags that several verbs share, so that each means the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.budget.spec import BudgetError, BudgetSpec
from harness.records.errors import UsageError

if TYPE_CHECKING:
    from harness.benchmarks.synthetic import Scene

Method = Annotated[str, typer.Option(help="NAME, NAME:PRESET, or a path: ./mine.py[:Class].")]


Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method, key=value. Repeatable.")
]


BudgetWords = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="50%, 128 tokens, native, or KIND:VALUE (layer_average, interface_kept, flops_ratio). Default: 50%.",
    ),
]


Model = Annotated[str, typer.Option(help="A model's short name, folder or hub id.")]


Revision = Annotated[
    str | None,
    typer.Option(help="Commit or tag of a hub model; NAME@REVISION says the same wherever models are named."),
]


ImageBackend = Annotated[str, typer.Option(help="Who prepares images: pil or torchvision.")]


BenchmarkName = Annotated[str, typer.Option("--benchmark", help="A benchmark's name, or a file or folder of your own.")]


Models = Annotated[
    str | None, typer.Option(metavar="A,B", help="Short names (`harness list models`), folders or hub ids.")
]


Methods = Annotated[str, typer.Option(metavar="A,B", help="Methods, NAME or NAME:PRESET, or all.")]


ImageSize = Annotated[str, typer.Option(metavar="W[xH],...", help="Sizes of the picture in pixels: 448,896x448.")]


TextTokens = Annotated[int, typer.Option(min=1, help="Words of the question, one text token each.")]


Suite = Annotated[str | None, typer.Option(metavar="NAME", help="A preset of models, budgets and benchmarks.")]


Blind = Annotated[bool, typer.Option("--blind", help="Without images: what the questions alone give away.")]


DataDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where published data sets lie, a folder each; nothing is downloaded."),
]


Stream = Annotated[
    bool, typer.Option("--stream", help="Read published data sets in place, image by image; nothing is stored.")
]


Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]


Limit = Annotated[int | None, typer.Option(min=1, help="Only the first samples, which stand for all.")]


Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


Attention = Annotated[str, typer.Option(help="sdpa, eager or flash_attention_2.")]


Pairs = Annotated[int | None, typer.Option(min=1, help="Timed pairs per shape.")]


Sessions = Annotated[int | None, typer.Option(min=1, help="Timing sessions; several run in a fresh process each.")]


Minutes = Annotated[float | None, typer.Option(min=0.001, help="Time for the timing pass. Default: 0.5 on a CPU.")]


NoTiming = Annotated[bool, typer.Option("--no-timing", help="Leave the timing pass out.")]


Profile = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Also write traces of both arms: TensorBoard, Perfetto.")
]


Store = Annotated[Path | None, typer.Option(help="The database. Default: results/local.duckdb in a checkout.")]


Results = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of submissions to show too. Default: results/, with --store none."),
]


Force = Annotated[bool, typer.Option("--force", help="Redo a run that is done.")]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


ALL = "all"


def submitted(store: Path | None, results: Path | None) -> Path | None:
    """The folder of submissions to show: --results, none beside a --store, else what came with the code."""
    from harness.records.provenance import ROOT

    wheel = ROOT / "leaderboard"
    shipped = wheel if (wheel / "submissions").is_dir() else ROOT / "results"
    return results or (None if store else shipped)


def split(words: str) -> list[str]:
    """The parts of "A,B", without repetition. Raises UsageError where there is none."""
    parts = list(dict.fromkeys(part.strip() for part in words.split(",") if part.strip()))
    if not parts:
        raise UsageError(f"expected a list such as A,B, got {words!r}")
    return parts


def revised(models: Sequence[str], revision: str | None) -> tuple[str, ...]:
    """The models, the only one as NAME@REVISION. Raises UsageError for one revision of several models."""
    if revision is None:
        return tuple(models)
    if len(models) > 1:
        raise UsageError(f"--revision is of one model, got {len(models)} models; write NAME@REVISION in the list")
    return (f"{models[0]}@{revision}",)


def methods_of(words: str) -> list[str]:
    """Names of methods; "all" is every shipped one. Raises UnknownMethod."""
    from methods import build, names

    found = [name for word in split(words) for name in (names() if word == ALL else [word])]
    for name in found:
        build(name)
    return list(dict.fromkeys(found))


def budgets_of(words: str) -> list[BudgetSpec]:
    """Budgets whose tokens are known before a run. Raises UsageError."""
    try:
        found = [BudgetSpec.parse(word) for word in split(words)]
    except BudgetError as error:
        raise UsageError(str(error)) from error
    if any(one.kind == "native" for one in found):
        raise UsageError("in native mode the picture decides what is kept; ask for a budget such as 50%")
    return found


def scenes_of(words: str, text_tokens: int) -> list[Scene]:
    """Pictures of the sizes that the words say. Raises UsageError."""
    from harness.benchmarks.synthetic import Scene

    return [Scene.parse(word, text_tokens) for word in split(words)]
