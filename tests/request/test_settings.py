from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from harness.records.errors import UsageError
from harness.request.settings import parse_settings


@dataclass(frozen=True)
class Method:
    layer: int = 2
    ratio: float = 0.5
    order: str = "spatial"
    merge: bool = False
    cuts: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 0.5)
    floor: int | None = None
    query: Literal["last", "all"] = "last"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("layer=3", 3),
        ("ratio=0.25", 0.25),
        ("ratio=1", 1.0),
        ("order=selection", "selection"),
        ("order=2", "2"),
        ("order=a=b", "a=b"),
        ("merge=true", True),
        ("merge=False", False),
        ("cuts=(2, 4, 6)", (2, 4, 6)),
        ("cuts=[2]", (2,)),
        ("pair=(3, 1)", (3, 1.0)),
        ("floor=none", None),
        ("floor=7", 7),
        ("query=all", "all"),
    ],
)
def test_a_setting_gets_the_type_of_its_field(word: str, value: object):
    (found,) = parse_settings("m", Method, [word]).values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("layer", "write --set key=value"),
        ("depth=3", "m has no setting 'depth'; settings: layer, ratio"),
        ("layer=2.5", "m's layer takes int, got '2.5'"),
        ("layer=True", "m's layer takes int"),
        ("merge=1", "m's merge takes bool"),
        ("cuts=(1, 'a')", "m's cuts takes tuple"),
        ("pair=(1, 2, 3)", "m's pair takes tuple"),
        ("floor=x", "m's floor takes int | None"),
        ("query=first", "m's query takes"),
    ],
)
def test_a_setting_that_does_not_fit_says_what_would(word: str, message: str):
    with pytest.raises(UsageError) as caught:
        parse_settings("m", Method, [word])
    assert message in str(caught.value)


def test_later_words_win_and_none_give_nothing():
    assert parse_settings("m", Method, ["layer=3", "layer=4"]) == {"layer": 4}
    assert parse_settings("m", Method, []) == {}


def test_every_shipped_method_has_settings_that_can_be_spelled():
    import methods

    for name in methods.names():
        kind = methods.get(name)
        for key, value in kind().settings().items():
            assert parse_settings(name, kind, [f"{key}={value!r}"]) == {key: value}
