"""From words to cells: what a sweep expands to, and what stops it before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.latency.protocol import Protocol
from harness.records.errors import UnknownBenchmark, UnknownModel, UsageError
from harness.sweep.grid import GridCell, entries_of
from harness.sweep.words import GridWords, read_grid
from methods import names
from methods.base import UnknownMethod


def cells(timing: Protocol | None = None, **words: object) -> list[GridCell]:
    usual = {"methods": ("divprune",), "budgets": ("50%",), "seeds": 2, "controls": False}
    return entries_of(GridWords(**{**usual, "device": "cpu", **words}), timing)  # type: ignore[arg-type]


def spelled(entries: list[GridCell]) -> list[str]:
    return [f"{one.request.method} {one.request.budget} {one.request.seed}" for one in entries]


def test_a_grid_is_every_method_at_every_budget_and_no_pruning_once():
    assert spelled(cells(methods=("divprune", "fastv"), budgets=("50%", "16"))) == [
        "full 100% 0", "divprune 50% 0", "divprune 16 0", "fastv 50% 0", "fastv 16 0",
    ]  # fmt: skip


def test_only_stochastic_methods_get_the_seeds():
    assert spelled(cells(methods=("random", "grid"))) == ["full 100% 0", "random 50% 0", "random 50% 1", "grid 50% 0"]


def test_every_cell_prepares_its_images_as_the_grid_says():
    assert {cell.request.image_backend for cell in cells(image_backend="torchvision")} == {"torchvision"}
    assert {cell.request.image_backend for cell in cells()} == {"pil"}


def test_controls_come_unless_refused_and_only_once():
    with_controls = spelled(cells(methods=("divprune", "grid"), controls=True))
    everywhere = ("random_pre_tokenization", "random_in_vit", "random", "random_in_llm")
    assert with_controls[:9] == ["full 100% 0", *(f"{name} 50% {seed}" for name in everywhere for seed in (0, 1))]
    assert "pool 50% 0" in with_controls and with_controls.count("grid 50% 0") == 1
    assert spelled(cells()) == ["full 100% 0", "divprune 50% 0"]


def test_all_means_every_shipped_method():
    chosen = {one.request.method for one in cells(methods=("all",), controls=True)}
    assert chosen == set(names())
    assert not {"random", "random_in_vit", "grid", "pool"} & {one.request.method for one in cells(methods=("all",))}


def test_controls_have_no_native_budget():
    assert spelled(cells(methods=("fastv", "random"), budgets=("native",))) == ["full 100% 0", "fastv native 0"]


def test_cells_of_one_model_come_together():
    found = cells(benchmarks=("reference", "reference-quick"))
    assert [one.request.benchmark for one in found] == ["reference"] * 2 + ["reference-quick"] * 2


def test_latency_is_taken_for_one_seed_of_a_cell_and_never_for_no_pruning():
    timed = [one for one in cells(Protocol(pairs=2), methods=("random",), seeds=3) if one.timing]
    assert spelled(timed) == ["random 50% 0"]


def test_settings_are_typed_and_belong_to_one_method():
    fastv, divprune = cells(methods=("fastv", "divprune"), settings={"fastv": {"k": 3}})[1:]
    assert (fastv.request.settings, divprune.request.settings) == ({"k": 3}, {})


def test_presets_are_methods_of_their_own():
    assert spelled(cells(methods=("quietprune:init", "quietprune")))[1:] == [
        "quietprune:init 50% 0",
        "quietprune 50% 0",
    ]


@pytest.mark.parametrize(
    ("words", "kind", "complaint"),
    [
        ({"methods": ("divprun",)}, UnknownMethod, "no method 'divprun'; nearest: divprune"),
        ({"methods": ("fastv:fast",)}, UnknownMethod, "no preset 'fast'"),
        ({"methods": ()}, UsageError, "needs methods and budgets"),
        ({"budgets": ("150%",)}, UsageError, "out of range"),
        ({"models": ("refrence-a",)}, UnknownModel, "nearest: reference-a"),
        ({"benchmarks": ("refrence",)}, UnknownBenchmark, "nearest: reference"),
        ({"seeds": 0}, UsageError, "at least 1"),
        ({"seeds": (0, -1)}, UsageError, "at least 1"),
        ({"limit": 0}, UsageError, "limit must be at least 1, got 0"),
        ({"dtype": "int8"}, UsageError, "unknown dtype 'int8'"),
        ({"settings": {"divprune": {"depht": 1}}}, UsageError, "divprune has no setting 'depht'"),
        ({"settings": {"fastvv": {"k": 1}}}, UsageError, "'fastvv', which is not in the sweep; nearest: divprune"),
    ],
)
def test_what_makes_no_cell_is_said_with_the_nearest_names(words: dict, kind: type[Exception], complaint: str):
    with pytest.raises(kind) as raised:
        cells(**words)
    assert complaint in str(raised.value)


def test_a_file_holds_the_same_words(tmp_path: Path):
    file = tmp_path / "grid.toml"
    file.write_text(
        'methods = ["fastv"]\nbudgets = ["50%", 16]\nseeds = [4, 5]\ncontrols = false\nlimit = 9\ntiming = false\n'
        "minutes = 2\n[settings.fastv]\nk = 3\n"
    )
    words = GridWords(**read_grid(file))
    assert words == GridWords(
        methods=("fastv",), budgets=("50%", 16), seeds=(4, 5), controls=False, limit=9, timing=False, minutes=2.0,
        settings={"fastv": {"k": 3}},
    )  # fmt: skip
    assert spelled(entries_of(words, None)) == ["full 100% 0", "fastv 50% 4", "fastv 16 4"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('methdos = ["fastv"]', "unknown key 'methdos'; nearest: methods"),
        ("methods = 3", "methods takes"),
        ("methods = [", "cannot read the grid"),
        ("settings = 1", "settings are tables"),
    ],
)
def test_a_file_that_cannot_be_acted_on_is_named(tmp_path: Path, text: str, complaint: str):
    (tmp_path / "grid.toml").write_text(text)
    with pytest.raises(UsageError) as raised:
        read_grid(tmp_path / "grid.toml")
    assert "grid.toml" in str(raised.value) and complaint in str(raised.value)
