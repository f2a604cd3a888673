"""Settings of a method from words: "layer=2" becomes {"layer": 2}, typed against the method's dataclass fields."""

from __future__ import annotations

import ast
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from harness.records.errors import UsageError


def parse_settings(method: str, kind: type, words: Iterable[str]) -> dict[str, Any]:
    """{"key": value} from "key=value" words.

    kind: the method's dataclass; values are read as Python literals (3, 0.5, True, None, (2, 4)) or plain text.
    Raises UsageError naming the known settings, or the type that was expected.
    """
    hints = _settings_of(kind)
    parsed: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"cannot read --set {word!r}; write --set key=value")
        if key not in hints:
            raise UsageError(f"{method} has no setting {key!r}; settings: {', '.join(hints) or 'none'}")
        parsed[key] = _value(f"{method}'s {key}", text, hints[key])
    return parsed


def _settings_of(kind: type) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {name: hints[name] for name in getattr(kind, "__dataclass_fields__", {})}


def _value(label: str, text: str, hint: Any) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    for candidate in (value, text):
        fitted = _fit(candidate, hint)
        if fitted is not _MISFIT:
            return fitted
    raise UsageError(f"{label} takes {_spell(hint)}, got {text!r}")


_MISFIT = object()


def _fit(value: Any, hint: Any) -> Any:
    """The value as the hint wants it (an int may stand for a float, a list for a tuple), or _MISFIT."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return next((f for f in (_fit(value, option) for option in get_args(hint)) if f is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if value in get_args(hint) else _MISFIT
    if origin is tuple:
        return _fit_tuple(value, get_args(hint))
    if hint is Any:
        return value
    if hint is types.NoneType:
        return None if value is None else _MISFIT
    if hint is float and type(value) is int:
        return float(value)
    return value if type(value) is hint else _MISFIT


def _fit_tuple(value: Any, options: tuple[Any, ...]) -> Any:
    if not isinstance(value, tuple | list):
        return _MISFIT
    hints = [options[0]] * len(value) if options[1:] == (...,) else list(options)
    fitted = tuple(_fit(item, hint) for item, hint in zip(value, hints, strict=False))
    return _MISFIT if len(hints) != len(value) or _MISFIT in fitted else fitted


def _spell(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
