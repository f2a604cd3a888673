"""What is wrong with a data set is said in words, with the exit code that fits; a bad image costs one row."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from harness.benchmarks.declared import open_declared, stratified
from harness.benchmarks.images import decode_cell
from harness.benchmarks.registry import declarations, open_benchmark
from harness.records.errors import (
    BenchmarkUnavailable,
    CorruptBenchmark,
    HarnessError,
    UndecodableImage,
    UnknownBenchmark,
)
from harness.records.records import Record, Sample

FIXTURES = Path(__file__).parents[1] / "fixtures"
POPE = declarations()["pope"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    """A private copy of a benchmark's fixture, below `tmp_path`."""
    return lambda name: Path(shutil.copytree(FIXTURES / name, tmp_path / name))


def tsv_rows(file: Path, change: Callable[[list[list[str]]], list[list[str]]]) -> None:
    """Change the cells of a TSV, header included, and its sum with them."""
    cells = [line.split("\t") for line in file.read_text().splitlines()]
    file.write_text("".join("\t".join(row) + "\n" for row in change(cells)))
    file.with_name(file.name + ".md5").write_text(hashlib.md5(file.read_bytes()).hexdigest())


def png(size: tuple[int, int]) -> bytes:
    written = io.BytesIO()
    Image.new("1", size).save(written, "PNG")
    return written.getvalue()


def refused(name: str, data_dir: Path, error: type[HarnessError], words: str, code: int) -> None:
    with pytest.raises(error, match=words) as caught:
        open_benchmark(name, data_dir)
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)


def test_a_truncated_table_fails_by_its_sum(folder, tmp_path: Path):
    file = folder("pope_vlmevalkit") / "POPE.tsv"
    file.write_bytes(file.read_bytes()[:-40])
    refused("pope_vlmevalkit", tmp_path, CorruptBenchmark, "has md5 .*, expected .*download it again", 1)


def test_without_a_sum_beside_it_a_table_must_be_the_published_one(folder, tmp_path: Path):
    (folder("pope_vlmevalkit") / "POPE.tsv.md5").unlink()
    refused("pope_vlmevalkit", tmp_path, CorruptBenchmark, "expected c12f5acb142f2ef1f85a26ba2fbe41d5", 1)


def test_a_table_cut_within_a_row_names_the_row(folder, tmp_path: Path):
    file = folder("aesbench_val") / "AesBench_VAL.tsv"
    tsv_rows(file, lambda rows: [*rows[:-1], rows[-1][:4]])
    refused("aesbench_val", tmp_path, CorruptBenchmark, "row 2 has the answer '', expected a letter", 1)


def test_a_renamed_column_of_a_table_is_named(folder, tmp_path: Path):
    file = folder("crpe_exist_vlmevalkit") / "CRPE_EXIST.tsv"
    tsv_rows(file, lambda rows: [["index", "picture", *rows[0][2:]], *rows[1:]])
    refused("crpe_exist_vlmevalkit", tmp_path, CorruptBenchmark, "lacks the column image; it has index, picture,", 1)


def test_an_empty_split_is_refused(folder, tmp_path: Path):
    file = folder("pope_vlmevalkit") / "POPE.tsv"
    tsv_rows(file, lambda rows: rows[:1])
    refused("pope_vlmevalkit", tmp_path, CorruptBenchmark, "cannot read POPE.tsv .* no data", 1)
    from datasets import load_dataset

    rows = load_dataset(str(FIXTURES / "pope"), split="test").select([])
    rows.to_parquet(folder("pope") / "data/test-00000-of-00001.parquet")
    refused("pope", tmp_path, CorruptBenchmark, "lmms-lab-encoder/POPE, split test.* no (rows|data)", 1)


def test_changed_files_are_never_answered_from_the_cache_of_others(folder, tmp_path: Path):
    from datasets import load_dataset

    before = open_benchmark("pope", FIXTURES)
    file = folder("pope") / "data/test-00000-of-00001.parquet"
    load_dataset(str(FIXTURES / "pope"), split="test").select([0]).to_parquet(file)
    after = open_benchmark("pope", tmp_path)
    assert (len(before.samples), len(after.samples)) == (3, 1)
    assert before.revision != after.revision


def test_torn_parquet_is_refused(folder, tmp_path: Path):
    file = folder("pope") / "data/test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:500])
    refused("pope", tmp_path, CorruptBenchmark, "cannot read lmms-lab-encoder/POPE, split test", 1)
    with pytest.raises(CorruptBenchmark, match="a parquet file is torn"):
        open_benchmark("pope", tmp_path, stream=True)


def test_a_split_that_is_not_there_is_named(folder, tmp_path: Path):
    folder("pope")
    elsewhere = replace(POPE, source=replace(POPE.source, split="adversarial"))
    with pytest.raises(CorruptBenchmark, match='Unknown split "adversarial"'):
        open_declared(elsewhere, tmp_path)


def test_hidden_answers_are_found_when_opened(folder, tmp_path: Path):
    file = folder("abench_vlmevalkit") / "A-bench_VAL.tsv"
    tsv_rows(file, lambda rows: [rows[0], *[[*row[:-1], ""] for row in rows[1:]]])
    refused("abench_vlmevalkit", tmp_path, CorruptBenchmark, "answers are hidden", 1)


def test_a_row_of_another_shape_is_named(folder, tmp_path: Path):
    file = folder("crpe_exist_vlmevalkit") / "CRPE_EXIST.tsv"
    tsv_rows(file, lambda rows: [*rows[:2], ["second", *rows[2][1:]], *rows[3:]])
    refused("crpe_exist_vlmevalkit", tmp_path, CorruptBenchmark, "row 1 is not as declared: .*'second'", 1)


def test_a_missing_folder_says_what_belongs_there(tmp_path: Path):
    refused("pope", tmp_path, BenchmarkUnavailable, "no folder pope; put lmms-lab-encoder/POPE, split test there", 3)
    (tmp_path / "pope_vlmevalkit").mkdir()
    refused("pope_vlmevalkit", tmp_path, BenchmarkUnavailable, "has no POPE.tsv; download it from https://", 3)


def test_a_folder_may_have_the_hubs_own_name(folder, tmp_path: Path):
    shutil.move(folder("pope"), tmp_path / "lmms-lab-encoder/POPE")
    assert len(open_benchmark("pope", tmp_path).samples) == 3


@pytest.mark.parametrize("damage", ["missing", "torn", "bomb", "no base64"])
def test_a_bad_image_costs_its_rows_and_no_others(folder, tmp_path: Path, damage: str):
    cell = {
        "missing": "",
        "torn": base64.b64encode(png((512, 512))[:-30]).decode(),
        "bomb": base64.b64encode(png((10_000, 10_000))).decode(),
        "no base64": "?" * 100,
    }[damage]
    file = folder("aesbench_val") / "AesBench_VAL.tsv"
    tsv_rows(file, lambda rows: [*rows[:3], [rows[3][0], cell, *rows[3][2:]]])
    benchmark = open_benchmark("aesbench_val", tmp_path)
    for sample in benchmark.samples:
        if sample.id == "2":
            words = {"bomb": "100000000 pixels", "missing": "is empty"}.get(damage, "AesBench_VAL.tsv, row 2, image")
            with pytest.raises(UndecodableImage, match=words):
                benchmark.load_images(sample)
        else:
            assert benchmark.load_images(sample)[0].size == (128, 96)


def test_an_error_row_counts_as_wrong_and_as_unread():
    benchmark = open_declared(declarations()["gqa"], FIXTURES)  # by its rule no text at all is a wrong answer
    records = [
        Record(one.id, one.cluster, one.category, one.answer, "", 0.0, 0, None, (), error="torn")
        for one in benchmark.samples
    ]
    assert benchmark.metrics(records) == {"gqa_exact_match": 0.0, "unparsed_ratio": 1.0}


def test_an_image_of_a_hundred_megapixels_is_refused_before_it_is_decoded():
    with pytest.raises(UndecodableImage, match=r"row 0: .*100000000 pixels"):
        decode_cell({"bytes": png((10_000, 10_000)), "path": None}, "row 0")


def test_a_wrong_name_gets_the_nearest_and_the_way_to_ones_own():
    with pytest.raises(UnknownBenchmark, match=r"nearest: pope.*\./mine\.jsonl"):
        open_benchmark("popee")


def test_the_first_samples_have_the_categories_in_their_proportions():
    samples = [
        Sample(f"{kind}{n}", "c", kind, "q", "a", ("i",)) for kind, of in (("x", 60), ("y", 20)) for n in range(of)
    ]
    ordered = stratified(samples)
    assert sorted(one.id for one in ordered) == sorted(one.id for one in samples)
    assert ordered == stratified(samples)
    for limit in (8, 20, 40):
        assert abs(sum(one.category == "x" for one in ordered[:limit]) - 0.75 * limit) <= 1
    assert [one.id for one in ordered if one.category == "x"] != [one.id for one in samples if one.category == "x"]


def test_rows_that_are_judged_together_stay_together():
    samples = [Sample(f"{n}", "c", "x", "q", "a", ("i",), groups={"circular": str(n % 5)}) for n in range(20)]
    order = [one.groups["circular"] for one in stratified(samples)]
    assert [order[i : i + 4] for i in range(0, 20, 4)] == [[one] * 4 for one in dict.fromkeys(order)]
