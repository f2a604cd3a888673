"""Settings from words: "layer=2" becomes {"layer": 2}, as the types of a dataclass's fields declare it."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from harness.records.errors import UsageError


def parse_settings(method: str, kind: type, words: Iterable[str]) -> dict[str, Any]:
    """{"key": value} from "key=value" words.

    kind: the method's dataclass; values are read as Python literals (3, 0.5, True, None, (2, 4)) or plain text.
    Raises UsageError naming the known settings, or what was expected; PruningError for a type that cannot be read.
    """
    from methods.settings import settings_of  # not before a command runs

    hints = settings_of(kind)
    parsed: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"cannot read --set {word!r}; write --set key=value")
        if key not in hints:
            raise UsageError(f"{method} has no setting {key!r}; settings: {', '.join(hints) or 'none'}")
        parsed[key] = _value(f"{method}'s {key}", text, hints[key])
    return parsed


def _value(label: str, text: str, hint: Any) -> Any:
    from methods.settings import MISFIT, fit, misfit

    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    for candidate in (value, text):
        fitted = fit(candidate, hint)
        if fitted is not MISFIT:
            return fitted
    raise UsageError(misfit(label, hint, text))
