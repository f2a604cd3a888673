"""Every published benchmark on its fixture, through the real loader: prompts and scores as their tools have them.

The expectations are typed from the description of each benchmark, not from its declaration.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_tables import ASKED, SCORED

from harness.benchmarks.declaration import Hub
from harness.benchmarks.declared import DeclaredBenchmark, open_declared
from harness.benchmarks.registry import declarations, describe, names
from harness.benchmarks.tables import check_columns
from harness.records.errors import CorruptBenchmark
from harness.records.records import Record

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = sorted(declarations())


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """The fixtures' tables are cached where the tests end with them."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="module")
def opened(cache: None) -> dict[str, DeclaredBenchmark]:
    return {name: open_declared(declaration, FIXTURES) for name, declaration in declarations().items()}


def answered(benchmark: DeclaredBenchmark, predictions: dict[str, str]) -> list[Record]:
    return [
        Record(
            one.id, one.cluster, one.category, one.answer, words, benchmark.score(words, one), 12, 6, (6,) * 16
        )
        for one in benchmark.samples
        for words in (predictions[one.id],)
    ]  # fmt: skip


def test_every_declaration_has_a_fixture_a_prompt_and_a_score():
    assert len(NAMES) >= 25
    assert set(NAMES) == set(ASKED) == set(SCORED) == {path.name for path in FIXTURES.iterdir() if path.is_dir()}


@pytest.mark.parametrize("name", NAMES)
def test_a_question_is_asked_as_its_tool_asks_it(opened: dict[str, DeclaredBenchmark], name: str):
    benchmark, (number, prompt, cluster, images) = opened[name], ASKED[name]
    sample = next(one for one in benchmark.samples if one.id == number)
    assert (benchmark.prompt(sample), sample.cluster if cluster else "") == (prompt, cluster)
    assert [image.size for image in benchmark.load_images(sample)] == images


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_scored_by_the_rule_that_the_metric_names(opened: dict[str, DeclaredBenchmark], name: str):
    benchmark, (predictions, expected) = opened[name], SCORED[name]
    assert {one.id for one in benchmark.samples} == set(predictions)
    found = benchmark.metrics(answered(benchmark, predictions))
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert all(0 <= benchmark.score(words, one) <= 1 for one in benchmark.samples for words in predictions.values())


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(declarations()[name].source, Hub)])
def test_streaming_gives_the_same_samples_images_and_revision(opened: dict[str, DeclaredBenchmark], name: str):
    cached, streamed = opened[name], open_declared(declarations()[name], FIXTURES, stream=True)
    assert (streamed.samples, streamed.revision) == (cached.samples, cached.revision)
    for sample in cached.samples:
        images = [[image.tobytes() for image in one.load_images(sample)] for one in (streamed, cached)]
        assert images[0] == images[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_column_is_named_beside_what_is_there(name: str):
    source = declarations()[name].source
    for column in source.columns:
        found = [f"{one}_renamed" if one == column else one for one in source.columns]
        with pytest.raises(CorruptBenchmark, match=f"lacks the column {column}; it has .*{column}_renamed"):
            check_columns(found, source)


@pytest.mark.parametrize("name", NAMES)
def test_the_list_says_where_what_and_by_which_rule(name: str):
    told = describe(name)
    assert all(told[key] for key in ("title", "ids", "split", "columns", "metrics", "answers", "cluster", "rule_of"))
    assert {"revision", "licence", "samples", "config"} <= told.keys()
    assert 0 <= told["chance"]["all"] <= 1
    assert len(set(told["metrics"])) == len(told["metrics"])


def test_no_two_rules_share_a_metrics_name_across_benchmarks_of_one_tool():
    assert {"pope_f1", "pope_accuracy"} <= set(describe("pope")["metrics"])
    assert {"crpe_circular4", "crpe_row_accuracy"} <= set(describe("crpe_relation_vlmevalkit")["metrics"])
    assert names() == sorted(names())


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(declarations()[name].source, Hub)])
def test_a_renamed_column_in_the_files_themselves_is_found(name: str, tmp_path: Path):
    from datasets import load_dataset

    source = declarations()[name].source
    folder = tmp_path / name / "data"
    folder.mkdir(parents=True)
    rows = load_dataset(str(FIXTURES / name), name=source.config, split=source.split)
    rows.rename_column(source.columns[0], "something_else").to_parquet(
        folder / f"{source.split}-00000-of-00001.parquet"
    )
    plain = replace(declarations()[name], source=replace(source, config=None), pictures=None)
    with pytest.raises(CorruptBenchmark, match=f"lacks the column {source.columns[0]}.*something_else"):
        open_declared(plain, tmp_path)
