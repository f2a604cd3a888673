"""Flags from the options that they fill: each is declared once, with its help, and means the same everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_origin

import typer

from harness.budget.spec import BudgetError, BudgetSpec
from harness.records.errors import UsageError
from harness.request.options import CellWords, RunOptions, choices, declared

if TYPE_CHECKING:
    from harness.benchmarks.synthetic import SyntheticScene

Options = TypeVar("Options", bound=RunOptions)


def flag(kind: type[RunOptions], name: str) -> Any:
    """The annotation from which typer makes the flag of a field. Choices are checked where options are built."""
    hint, declaration = declared(kind)[name]
    option = typer.Option(
        declaration.words or f"--{name.replace('_', '-')}",
        help=declaration.help,
        metavar=declaration.metavar or "|".join(choices(hint)) or ("A,B" if _is_list(hint) else None),
        min=declaration.least,
        show_default=not declaration.words.startswith(" /"),  # "default: True" of --no-x would mislead
    )
    return Annotated[declaration.spelled or (str if choices(hint) or _is_list(hint) else hint), option]


def _is_list(hint: Any) -> bool:
    """True for a tuple, which is written A,B."""
    return get_origin(hint) is tuple


def _parameter(kind: type[RunOptions], name: str) -> inspect.Parameter:
    [default] = (field.default for field in fields(kind) if field.name == name)
    if _is_list(declared(kind)[name][0]):
        default = ",".join(map(str, default)) or None
    default = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=flag(kind, name))


def takes(kind: type[RunOptions], *without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of a class of options; its parameter `asked` gets one value of that class.

    without: fields that the command does not take; they keep their default.
    """
    hints = declared(kind)
    ranked = dict.fromkeys(name for owner in kind.__mro__ for name in inspect.get_annotations(owner))  # its own first
    taken = [name for name in ranked if name in hints and name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        del own["asked"]

        @wraps(command)
        def called(**words: Any) -> None:
            said = {name: words.pop(name) for name in taken}
            lists = [name for name in taken if _is_list(hints[name][0])]
            said |= {name: () if said[name] is None else tuple(split(said[name])) for name in lists}
            command(asked=kind(**said), **words)

        flags = [_parameter(kind, name) for name in taken]
        every = [*flags, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own.values())]
        called.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in every}
        return called

    return decorate


def given(context: typer.Context) -> set[str]:
    """The parameters that stand in the command."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def filled(context: typer.Context, asked: Options, values: Mapping[str, Any]) -> Options:
    """The options with `values` where the command says nothing."""
    return replace(asked, **{name: value for name, value in values.items() if name not in given(context)})


# Of commands that share one or two flags only.
Method, Setting, Model = (flag(CellWords, name) for name in ("method", "settings", "model"))
Seed, Device, Attention = (flag(CellWords, name) for name in ("seed", "device", "attention"))
DataDir, Timing, Store, Json = (flag(RunOptions, name) for name in ("data_dir", "timing", "store", "json"))
Models = Annotated[
    str | None, typer.Option(metavar="A,B", help="Short names (`harness list models`), folders or hub ids.")
]

Methods = Annotated[str, typer.Option(metavar="A,B", help="Methods, NAME or NAME:PRESET, or all.")]

ImageSize = Annotated[str, typer.Option(metavar="W[xH],...", help="Sizes of the picture in pixels: 448,896x448.")]

TextTokens = Annotated[int, typer.Option(min=1, help="Words of the question, one text token each.")]

Results = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of submissions to show too. Default: results/, with --store none."),
]

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


def scenes_of(words: str, text_tokens: int) -> list[SyntheticScene]:
    """Pictures of the sizes that the words say. Raises UsageError."""
    from harness.benchmarks.synthetic import SyntheticScene

    return [SyntheticScene.parse(word, text_tokens) for word in split(words)]
