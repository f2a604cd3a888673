"""Options of a run, declared once: their types, choices, ranges and defaults, and how the command line spells them.

ModelOptions -> SampleOptions -> RunOptions -> CellWords, each with the fields of the one before. A verb takes its flags
from the class that holds what it needs; what is built from a TOML file or in Python passes the same checks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from harness.budget.spec import BudgetError, BudgetSpec
from harness.records.errors import EnvironmentProblem, UsageError
from harness.records.records import FULL

Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager", "flash_attention_2"]
ImageBackend = Literal["pil", "torchvision", "lmms-eval", "lmms-eval:CLASS"]  # the last two: for lmms:TASK alone

PACKAGES = {  # that a choice needs, and the way round
    "flash_attention_2": ("flash_attn", "needs the package flash-attn, which is not here; use sdpa or eager"),
    "torchvision": ("torchvision", "is not installed here; use pil"),
}


@dataclass(frozen=True)
class Flag:
    """How a field is written on the command line.

    words: the flag where it is not --name, " /--no-x" for one that switches off. least: the smallest number.
    spelled: the type of the word where the field can hold more.
    """

    help: str
    words: str = ""
    metavar: str | None = None
    least: float | None = None
    spelled: Any = None


@cache
def declared(kind: type) -> dict[str, tuple[Any, Flag]]:
    """Field -> (its type, its flag), of the fields that have one."""
    hints = get_type_hints(kind, include_extras=True)
    found = {field.name: get_args(hints[field.name]) for field in dataclasses.fields(kind)}
    return {name: parts for name, parts in found.items() if parts and isinstance(parts[-1], Flag)}


def choices(hint: Any) -> tuple[str, ...]:
    """The words that a Literal, or a Literal or None, allows; () for another type."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((found for found in map(choices, get_args(hint)) if found), ())


def _is_class(word: str, allowed: tuple[str, ...]) -> bool:
    """True for "x:Anything" where "x:CLASS" is allowed."""
    return f"{word.partition(':')[0]}:CLASS" in allowed and not word.endswith(":")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a model is opened. None is what was not said.

    Raises UsageError for a word that is no choice and for a number below its least.
    """

    dtype: Annotated[Dtype, Flag("Number format of weights and activations.")] = "float32"
    device: Annotated[str, Flag("auto, cpu, cuda or cuda:N.")] = "auto"
    attention: Annotated[Attention, Flag("Attention kernel.")] = "sdpa"
    image_backend: Annotated[ImageBackend, Flag("Who prepares images.")] = "pil"

    def __post_init__(self) -> None:
        for name, (hint, flag) in declared(type(self)).items():
            value, allowed = getattr(self, name), choices(hint)
            if value is not None and allowed and value not in allowed and not _is_class(value, allowed):
                raise UsageError(f"unknown {name.replace('_', ' ')} {value!r}; use one of {', '.join(allowed)}")
            if flag.least is not None and isinstance(value, int | float) and value < flag.least:
                raise UsageError(f"{name} must be at least {flag.least:g}, got {value}")

    def part(self, kind: type) -> dict[str, Any]:
        """The fields that a class of options has, as keywords."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(kind)}

    def resolved(self) -> Self:
        """The same on this machine: the device "auto" becomes its accelerator, or cpu.

        Raises EnvironmentProblem for a choice whose package is not installed.
        """
        for choice in (self.attention, self.image_backend):
            package, way_round = PACKAGES.get(choice, ("", ""))
            if package and find_spec(package) is None:
                raise EnvironmentProblem(f"{choice} {way_round}")
        if self.device != "auto":
            return self
        import torch

        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return dataclasses.replace(self, device=found.type if found is not None else "cpu")


@dataclass(frozen=True, kw_only=True)
class SampleOptions(ModelOptions):
    """Which samples are answered, and where they are read from. Places are no part of a run's identity."""

    limit: Annotated[int | None, Flag("Only the first samples, which stand for all.", least=1)] = None
    data_dir: Annotated[
        str | None, Flag("Where published data sets lie, a folder each; nothing is downloaded.", metavar="DIR")
    ] = None
    stream: Annotated[bool, Flag("Read published data sets in place, image by image; nothing is stored.")] = False


@dataclass(frozen=True, kw_only=True)
class RunOptions(SampleOptions):
    """Options that run, sweep, bench and lmms-eval's tasks share. timing: a timing pass follows the answers."""

    revision: Annotated[
        str | None, Flag("Commit or tag of a hub model; NAME@REVISION says the same wherever models are named.")
    ] = None
    seed: Annotated[int, Flag("Seed of everything random.", least=0)] = 0
    timing: Annotated[bool, Flag("Leave the timing pass out.", words=" /--no-timing")] = True
    pairs: Annotated[int | None, Flag("Timed pairs per shape.", least=1)] = None
    sessions: Annotated[int | None, Flag("Timing sessions; several run in a fresh process each.", least=1)] = None
    minutes: Annotated[float | None, Flag("Time for the timing pass. Default: 0.5 on a CPU.", least=0.001)] = None
    store: Annotated[Path | None, Flag("The database. Default: results/local.duckdb in a checkout.")] = None
    force: Annotated[bool, Flag("Redo a run that is done.")] = False
    json: Annotated[bool, Flag("Print one JSON document instead of tables.")] = False


@dataclass(frozen=True, kw_only=True)
class CellWords(RunOptions):
    """One cell in words. settings: key=value. budget: None is half of the visual tokens, all of them for `full`."""

    method: Annotated[str, Flag("NAME, NAME:PRESET, or a path: ./mine.py[:Class].")]
    settings: Annotated[
        list[str] | None,
        Flag("A setting of the method, key=value. Repeatable.", words="--set", metavar="KEY=VALUE"),
    ] = None
    budget: Annotated[
        str | None,
        Flag("50%, 128 tokens, native, or KIND:VALUE (layer_average, interface_kept, flops_ratio). Default: 50%."),
    ] = None
    model: Annotated[str, Flag("A model's short name, folder or hub id.")] = "reference-a"
    benchmark: Annotated[str, Flag("A benchmark's name, a file or folder of your own, or lmms:TASK.")] = (
        "reference-quick"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked_budget()

    def asked_budget(self) -> BudgetSpec:
        """The budget. Raises UsageError for one that cannot be read, and for any of the method that prunes nothing."""
        try:
            asked = BudgetSpec.parse(self.budget or ("100%" if self.method == FULL else "50%"))
        except BudgetError as error:
            raise UsageError(str(error)) from error
        if self.method == FULL and asked != BudgetSpec("layer_average", 1.0):
            raise UsageError(f"full keeps every visual token, got --budget {self.budget}; leave --budget out")
        return asked
