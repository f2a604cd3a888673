"""JSON from a stranger: small, UTF-8, plain values, and of a schema. And JSON of ours, in the same bytes every time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.records.errors import HarnessError

MAX_JSON_BYTES = 64 * 2**10
_LARGEST = 1e300
_TYPES: Mapping[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


class BadDocument(HarnessError):
    """A JSON file that is not what it should be; the message says what is wrong with it."""


def canonical(document: Mapping[str, Any]) -> bytes:
    """A document's bytes: sorted keys, one key a line, no NaN. Raises ValueError on one."""
    text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def load_json(path: Path) -> Any:
    """The document of a file. Raises BadDocument: too large, not UTF-8, no JSON, a key twice, NaN, nested too deep."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise BadDocument(f"it has {size} bytes, at most {MAX_JSON_BYTES} are taken")
    try:
        return json.loads(path.read_bytes().decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as problem:
        raise BadDocument("it is nested too deep") from problem
    except UnicodeDecodeError as problem:
        raise BadDocument(f"it is not UTF-8: {problem.reason} at byte {problem.start}") from problem
    except ValueError as problem:
        raise BadDocument(f"it is no JSON: {str(problem)[:200]}") from problem


@cache
def schema(name: str) -> Mapping[str, Any]:
    """A JSON Schema of ours by the name of its file."""
    return json.loads((Path(__file__).parent / f"{name}.schema.json").read_text(encoding="utf-8"))


def violations(value: Any, rule: Mapping[str, Any], root: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What is wrong with a value by a JSON Schema, one sentence each. Knows the words that our schemas use."""
    if "$ref" in rule:
        rule = root["$defs"][rule["$ref"].removeprefix("#/$defs/")]
    name = where or "the document"
    kinds = [rule["type"]] if isinstance(rule.get("type"), str) else rule.get("type", [])
    if kinds and not any(_is(value, kind) for kind in kinds):
        yield f"{name} should be {' or '.join(kinds)}, got {_short(value)}"
        return
    if ("const" in rule and value != rule["const"]) or ("enum" in rule and value not in rule["enum"]):
        yield f"{name} should be {_short(rule.get('const', rule.get('enum')))}, got {_short(value)}"
    match value:
        case str():
            yield from _text(value, rule, name)
        case bool() | None:
            pass
        case int() | float():
            yield from _number(value, rule, name)
        case list():
            yield from _list(value, rule, root, where)
        case dict():
            yield from _object(value, rule, root, where)


def _text(value: str, rule: Mapping[str, Any], name: str) -> Iterator[str]:
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        yield f"{name} is no text: half a letter stands alone"
    elif len(value) > rule.get("maxLength", math.inf):
        yield f"{name} has {len(value)} characters, at most {rule['maxLength']} are taken"
    elif "pattern" in rule and not re.fullmatch(rule["pattern"], value):
        yield f"{name} should match {rule['pattern']}, got {_short(value)}"


def _number(value: float, rule: Mapping[str, Any], name: str) -> Iterator[str]:
    if value < rule.get("minimum", -math.inf) or value <= rule.get("exclusiveMinimum", -math.inf):
        yield f"{name} is {_short(value)}, too small"
    if value > rule.get("maximum", math.inf) or value >= rule.get("exclusiveMaximum", math.inf):
        yield f"{name} is {_short(value)}, too large"


def _list(value: list, rule: Mapping[str, Any], root: Mapping[str, Any], where: str) -> Iterator[str]:
    if len(value) > rule.get("maxItems", math.inf):
        yield f"{where} has {len(value)} items, at most {rule['maxItems']} are taken"
        return
    for place, item in enumerate(value):
        yield from violations(item, rule.get("items", {}), root, f"{where}[{place}]")


def _object(value: dict, rule: Mapping[str, Any], root: Mapping[str, Any], where: str) -> Iterator[str]:
    if len(value) > rule.get("maxProperties", math.inf):
        yield f"{where} has {len(value)} keys, at most {rule['maxProperties']} are taken"
        return
    missing = [key for key in rule.get("required", ()) if key not in value]
    if missing:
        yield f"{where or 'the document'} lacks {', '.join(missing)}"
    known, others = rule.get("properties", {}), rule.get("additionalProperties", {})
    for key, item in value.items():
        inside = f"{where}.{key[:60]}".lstrip(".")
        if "propertyNames" in rule:
            yield from violations(key, rule["propertyNames"], root, f"a key of {where}")
        if key in known:
            yield from violations(item, known[key], root, inside)
        elif others is False:
            yield f"{where or 'the document'} has the unknown key {_short(key)}"
        else:
            yield from violations(item, others, root, inside)


def _is(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        real = isinstance(value, int | float) and not isinstance(value, bool)
        return real and -_LARGEST <= value <= _LARGEST and (kind == "number" or value == int(value))
    return isinstance(value, _TYPES[kind])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")
