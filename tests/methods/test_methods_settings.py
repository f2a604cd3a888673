"""Settings are what their types declare: every declared choice and range of every method, and what users may write."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args, get_origin

import pytest
import torch
from torch import Tensor

import methods
from harness.records.errors import UsageError
from harness.request.settings import parse_settings
from methods.base import Least, Pruner, PruningError, Range, UnknownMethod
from methods.settings import MISFIT, fit, settings_of, spell

# Settings that are in their range and are refused beside the defaults of others.
RELATED = {
    ("pyramiddrop", "layers"),
    ("pyramiddrop", "ratios"),
    ("quietprune", "granularity"),
    ("sparsevlm", "layers"),
}


def shaped(kind: Any, number: float) -> list[Any]:
    """A number as a setting of a type holds it: 1, 1.0, (1,), (1, 1, 1)."""
    if get_origin(kind) is tuple:
        length = 1 if ... in get_args(kind) else len(get_args(kind))
        return [tuple(shaped(get_args(kind)[0], number)) * length]
    if kind in (int, float):
        return [kind(number)]
    return [value for part in get_args(kind) for value in shaped(part, number)]


def edges(hint: Any) -> tuple[list[Any], list[Any]]:
    """(values that a type just allows, values that it just does not)."""
    if get_origin(hint) is Literal:
        return list(get_args(hint)), ["no such choice", None]
    if get_origin(hint) is not Annotated:
        return [], []
    kind, limits = get_args(hint)
    step = 1 if spell(kind).find("float") < 0 else 1e-9
    allowed, refused = [], []
    for end, is_open, outwards in ((limits.low, limits.above, -1), (limits.high, limits.below, 1)):
        if end == math.inf:
            continue
        allowed += shaped(kind, end - outwards * step if is_open else end)
        refused += shaped(kind, end if is_open else end + outwards * step)
    return allowed, refused


def table(which: int) -> list[Any]:
    """Cases of all methods: values that are allowed (0), or not (1)."""
    return [*cases(which)]


def cases(which: int) -> Iterator[Any]:
    for method in methods.names():
        for name, hint in settings_of(methods.get(method)).items():
            for value in edges(hint)[which]:
                yield pytest.param(method, name, value, id=f"{method} {name}={value!r}")


@pytest.mark.parametrize(("method", "name", "value"), table(0))
def test_every_declared_choice_and_end_of_a_range_is_accepted(method: str, name: str, value: Any):
    kind = methods.get(method)
    assert parse_settings(method, kind, [f"{name}={value!r}"]) == {name: value}
    try:
        assert kind(**{name: value}).settings()[name] is value
    except PruningError as error:
        assert " takes " not in str(error) and (method, name) in RELATED


@pytest.mark.parametrize(("method", "name", "value"), table(1))
def test_what_lies_outside_is_refused_with_one_sentence_everywhere(method: str, name: str, value: Any):
    kind = methods.get(method)
    sentence = f"{method}'s {name} takes {spell(settings_of(kind)[name])}, got "
    with pytest.raises(PruningError) as in_python:
        kind(**{name: value})
    with pytest.raises(UsageError) as in_words:
        parse_settings(method, kind, [f"{name}={value!r}"])
    assert str(in_python.value) == f"{sentence}{value!r}" and str(in_words.value).startswith(sentence)


def test_the_table_is_not_empty():
    assert len(list(table(0))) > 80 and len(list(table(1))) > 80


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "int"),
        (int | None, "int | None"),
        (Literal["last", 2], '"last" | 2'),
        (Annotated[float, Range(0, 1, above=True)], "float in (0, 1]"),
        (Annotated[float, Range(-1, 1, below=True)], "float in [-1, 1)"),
        (Annotated[float, Range(0, above=True)], "float > 0"),
        (Annotated[int, Least(1)] | None, "int >= 1 | None"),
        (Annotated[tuple[int, ...], Least(1)], "tuple[int, ...], each >= 1"),
    ],
)
def test_types_are_put_into_words(hint: Any, words: str):
    assert spell(hint) == words


@pytest.mark.parametrize(
    ("value", "hint", "fitted"),
    [
        (1, float, 1.0),
        ([1, 2], tuple[int, ...], (1, 2)),
        (None, Annotated[int | None, Least(1)], None),
        (0, Annotated[int | None, Least(1)], MISFIT),
        (True, int, MISFIT),
        (2.0, Literal[2, 3], MISFIT),
        (math.nan, Annotated[float, Least(0)], MISFIT),
        ((1, 0), Annotated[tuple[int, ...], Least(1)], MISFIT),
        ((1,), tuple[int, int], MISFIT),
        ((), tuple[int, ...], ()),
        ("x", list[int], "x"),
        (3, Any, 3),
    ],
)
def test_a_value_fits_its_type_or_does_not(value: Any, hint: Any, fitted: Any):
    found = fit(value, hint)
    assert (found is MISFIT) is (fitted is MISFIT) and (found == fitted or fitted is MISFIT)


class Scorer(Protocol):
    def __call__(self, rows: Tensor) -> Tensor: ...


def test_types_that_say_nothing_of_values_are_taken_as_they_come():
    @dataclass(frozen=True)
    class Odd(Pruner):
        name = "odd"
        scores: list[float] = ()  # type: ignore[assignment]
        scorer: Scorer | None = None
        rule: Callable[[int], int] = abs
        weights: Any = None

    assert Odd(scorer=torch.neg, weights={"a": 1}).settings()["rule"] is abs


def write(folder: Path, body: str, decorator: str = "@dataclass(frozen=True)") -> str:
    head = "from dataclasses import dataclass\nfrom methods.base import Pruner\n"
    (folder / "mine.py").write_text(f"{head}{decorator}\nclass Mine(Pruner):\n    name = 'mine'\n    {body}\n")
    return str(folder / "mine.py")


@pytest.mark.parametrize(
    ("body", "decorator", "sentence"),
    [
        ("presets: dict = {}", "@dataclass(frozen=True)", "presets of Mine belongs to the class.*presets: ClassVar"),
        ("title: str = 'Mine'", "@dataclass(frozen=True)", "title of Mine belongs to the class and is no setting"),
        ("rows: 'Rows' = None", "@dataclass(frozen=True)", "type of a setting of Mine cannot be read.*Rows"),
        ("ratio: float = None", "@dataclass(frozen=True)", "mine's ratio takes float, got None"),
        ("ratio: float = 0.5", "", "Mine is no dataclass; write @dataclass"),
    ],
)
def test_a_file_with_an_odd_setting_gets_a_sentence(tmp_path: Path, body: str, decorator: str, sentence: str):
    with pytest.raises(PruningError, match=sentence):
        methods.build(write(tmp_path, body, decorator))


def test_class_variables_and_untyped_attributes_are_no_settings(tmp_path: Path):
    body = "presets: 'ClassVar' = {'strong': {'ratio': 0.9}}\n    ratio: float = 0.5\n    strength = 2"
    path = write(tmp_path, body, "from typing import ClassVar\n@dataclass(frozen=True)")
    assert methods.build(f"{path}").settings() == {"ratio": 0.5}
    for name in ("presets", "strength"):
        with pytest.raises(UnknownMethod, match=f"no setting '{name}'; settings: ratio"):
            methods.build(path, **{name: 1})
        with pytest.raises(UsageError, match=f"no setting '{name}'; settings: ratio"):
            parse_settings("mine", methods.get(path), [f"{name}=1"])


def test_settings_that_contradict_each_other_are_for_the_method_to_refuse():
    @dataclass(frozen=True)
    class Pair(Pruner):
        name: ClassVar[str] = "pair"
        first: Annotated[int, Least(0)] = 1
        last: Annotated[int, Least(0)] = 2

        def check_settings(self) -> None:
            if self.first > self.last:
                raise PruningError(f"first must not be behind last, got {self.first} and {self.last}")

    assert Pair(last=1).settings() == {"first": 1, "last": 1}
    with pytest.raises(PruningError, match="behind last, got 3 and 2"):
        Pair(first=3)
