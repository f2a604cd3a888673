"""Settings of a method: the choices and ranges that their types declare, checked and put into words.

    order: Literal["spatial", "selection"] = "spatial"
    ratio: Annotated[float, Range(0, 1, above=True)] = 0.098
    layers: Annotated[tuple[int, ...], Least(1)] = (2, 6, 15)

Types that say nothing of their values (a Tensor, a Callable, Any) are taken as they come.
"""

from __future__ import annotations

import math
import types
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from methods.selection import PruningError

MISFIT = object()


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, or each of a tuple's. above: `low` is left out; below: `high` is."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'>' if self.above else '>='} {self.low:g}"
        return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"


class Least(Range):
    """Numbers from `low` on."""


@cache
def settings_of(kind: type) -> dict[str, Any]:
    """Setting -> its type, of a method's dataclass. Raises PruningError for a type that cannot be read."""
    if not is_dataclass(kind):
        raise PruningError(f"{kind.__name__} is no dataclass; write @dataclass(frozen=True) above the class")
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, AttributeError, TypeError) as error:
        raise PruningError(
            f"the type of a setting of {kind.__name__} cannot be read ({error}); import it where the file is run"
        ) from error
    return {field.name: hints[field.name] for field in fields(kind)}


def check(label: str, settings: object) -> None:
    """Raise PruningError for the first setting that its type does not allow. label: the method's name."""
    for name, hint in settings_of(type(settings)).items():
        value = getattr(settings, name)
        if fit(value, hint) is MISFIT:
            raise PruningError(misfit(f"{label}'s {name}", hint, value))


def misfit(label: str, hint: Any, came: Any) -> str:
    """The sentence for a value that its type does not allow."""
    return f"{label} takes {spell(hint)}, got {came!r}"


def fit(value: Any, hint: Any) -> Any:
    """The value as its type wants it (an int may stand for a float, a list for a tuple), or MISFIT."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _within(fit(value, parts[0]), [one for one in parts[1:] if isinstance(one, Range)])
    if origin in (Union, types.UnionType):
        return next((fitted for fitted in (fit(value, part) for part in parts) if fitted is not MISFIT), MISFIT)
    if origin is Literal:
        return next((part for part in parts if type(part) is type(value) and part == value), MISFIT)
    if hint is tuple or origin is tuple:
        return _each(value, parts or (Any, ...))
    if hint in (None, types.NoneType):
        return None if value is None else MISFIT
    if hint in (int, float):
        number = Integral if hint is int else Real
        fits = isinstance(value, number) and not isinstance(value, bool)
        return MISFIT if not fits else float(value) if hint is float else value
    if not isinstance(hint, type):
        return value
    try:
        return value if isinstance(value, hint) else MISFIT
    except TypeError:  # a protocol, say, that cannot be asked at run time
        return value


def _within(value: Any, ranges: list[Range]) -> Any:
    """The value if it, or each of a tuple, lies in the ranges; None, where its type allows it, lies in all."""
    items = value if isinstance(value, tuple) else (value,)
    fits = value is MISFIT or all(item is None or item in one for item in items for one in ranges)
    return value if fits else MISFIT


def _each(value: Any, parts: tuple[Any, ...]) -> Any:
    if not isinstance(value, tuple | list):
        return MISFIT
    hints = [parts[0]] * len(value) if parts[1:] == (...,) else [part for part in parts if part != ()]
    if len(hints) != len(value):
        return MISFIT
    fitted = tuple(fit(item, hint) for item, hint in zip(value, hints, strict=True))
    return MISFIT if MISFIT in fitted else fitted


def spell(hint: Any) -> str:
    """A type in words: 'float in (0, 1]', '"last" | "all"', 'int >= 1 | None', 'tuple[int, ...], each >= 1'."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner, ranges = spell(parts[0]), " and ".join(str(one) for one in parts[1:] if isinstance(one, Range))
        return f"{inner}{', each' if ranges and 'tuple' in inner else ''} {ranges}".rstrip()
    if origin in (Union, types.UnionType):
        return " | ".join(map(spell, parts))
    if origin is Literal:
        return " | ".join(f'"{part}"' if isinstance(part, str) else str(part) for part in parts)
    if hint is types.NoneType:
        return "None"
    return hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
