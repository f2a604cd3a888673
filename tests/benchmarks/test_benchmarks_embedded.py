from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from harness.benchmarks import images, names, open_benchmark
from harness.benchmarks.embedded import in_rounds, open_suite
from harness.benchmarks.scoring import exact_match, majority_share, normalise
from harness.benchmarks.targets import recall_of_target, units_of
from harness.records.errors import HarnessError, UndecodableImage, UnknownBenchmark
from harness.records.records import Sample


def test_answers_match_whatever_their_case_spaces_or_final_period():
    assert normalise("  Red. ") == "red"
    assert exact_match("Red.", "red") == 1.0
    assert exact_match("red 1", "red") == 0.0
    assert exact_match("", "red") == 0.0


def test_the_first_samples_show_every_category():
    names = ["read-0", "read-1", "read-2", "exist-0", "color-0", "color-1"]
    samples = [Sample(name, "c", name.split("-")[0], "q", "a", ("i",)) for name in names]
    turns = [sample.id for sample in in_rounds(samples)]
    assert turns == ["read-0", "exist-0", "color-0", "read-1", "color-1", "read-2"]
    assert in_rounds([]) == ()


def test_a_suite_has_its_questions_in_order_and_its_quick_split(suite_folder: Path):
    everything = open_suite("reference", suite_folder, quick=False)
    quick = open_suite("reference-quick", suite_folder, quick=True)
    assert [sample.id for sample in everything.samples][:3] == ["read-0", "exist-0", "read-1"]
    assert len(everything.samples) == 8
    assert [sample.id for sample in quick.samples] == ["read-0", "exist-0", "read-1", "exist-1"]


def test_a_sample_is_clustered_by_image_and_categorised_by_family(suite_folder: Path):
    sample = open_suite("reference", suite_folder, quick=False).samples[3]
    assert (sample.cluster, sample.category, sample.boxes) == ("images/1.png", "exist", ((0.0, 0.0, 32.0, 32.0),))


def test_chance_is_the_commonest_answer_of_each_family(suite_folder: Path):
    suite = open_suite("reference", suite_folder, quick=False)
    assert suite.chance == {"exist": 0.75, "read": 0.25}  # yes yes yes no; four different numbers
    assert majority_share(()) == {}


def test_the_revision_follows_questions_and_pixels(suite_folder: Path):
    before = open_suite("reference", suite_folder, quick=False).revision
    assert open_suite("reference-quick", suite_folder, quick=True).revision == before
    Image.new("RGB", (128, 96), (1, 2, 3)).save(suite_folder / "images/0.png")
    after_pixels = open_suite("reference", suite_folder, quick=False).revision
    questions = suite_folder / "questions.jsonl"
    questions.write_text(questions.read_text().replace("number on", "digits on", 1))
    assert len({before, after_pixels, open_suite("reference", suite_folder, quick=False).revision}) == 3


def test_images_are_decoded_to_rgb_only_when_asked(suite_folder: Path):
    Image.new("RGBA", (128, 96)).save(suite_folder / "images/0.png")
    (suite_folder / "images/1.png").write_bytes(b"no image")
    suite = open_suite("reference", suite_folder, quick=False)  # opening does not decode
    assert suite.load_images(suite.samples[0])[0].mode == "RGB"
    with pytest.raises(UndecodableImage, match=r"1\.png"):
        suite.load_image(suite.samples[2], 0)


@pytest.mark.parametrize("damage", ["truncated", "missing", "empty"])
def test_a_torn_image_is_named(suite_folder: Path, damage: str):
    path = suite_folder / "images/0.png"
    raw = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(raw[: len(raw) // 2] if damage == "truncated" else b"")
    with pytest.raises(UndecodableImage, match=r"0\.png"):
        images.decode(path)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path):
    Image.new("1", (10_000, 5_001)).save(tmp_path / "large.png")
    with pytest.raises(UndecodableImage, match="50 Mpx; the cap is 50"):
        images.decode(tmp_path / "large.png")
    Image.new("1", (16_000, 16_000)).save(tmp_path / "bomb.png")  # PIL alone would only warn
    with pytest.raises(UndecodableImage, match=r"bomb\.png"):
        images.decode(tmp_path / "bomb.png")


@pytest.mark.parametrize(("line", "word"), [("{", "no JSON"), (json.dumps({"id": "a"}), "lacks image")])
def test_a_damaged_questions_file_names_its_line(suite_folder: Path, line: str, word: str):
    questions = suite_folder / "questions.jsonl"
    questions.write_text(questions.read_text() + line + "\n")
    with pytest.raises(HarnessError, match=f"line 9.*{word}"):
        open_suite("reference", suite_folder, quick=False)


def test_a_missing_suite_says_what_to_do(tmp_path: Path):
    with pytest.raises(HarnessError, match="reinstall"):
        open_suite("reference", tmp_path, quick=False)


def test_an_unknown_benchmark_gets_the_nearest_names():
    assert {"reference", "reference-quick"} <= set(names())
    with pytest.raises(UnknownBenchmark, match="nearest: reference"):
        open_benchmark("refrence")


def test_units_of_a_box_are_those_it_overlaps():
    # a grid of 2 rows, 3 columns on 30 x 20 pixels: units are 10 x 10
    assert units_of((0, 0, 10, 10), (30, 20), (2, 3)) == {0}  # edges touch, no more
    assert units_of((9, 9, 11, 11), (30, 20), (2, 3)) == {0, 1, 3, 4}
    assert units_of((25, 5, 99, 6), (30, 20), (2, 3)) == {2}
    assert units_of((5, 5, 5, 15), (30, 20), (2, 3)) == {0, 3}  # a line still lies somewhere
    assert units_of((40, 40, 50, 50), (30, 20), (2, 3)) == set()


def test_recall_counts_units_that_every_site_kept():
    boxes = [(0.0, 0.0, 20.0, 10.0)]  # units 0 and 1
    assert recall_of_target(boxes, (30, 20), (2, 3), {}) == 1.0
    assert recall_of_target(boxes, (30, 20), (2, 3), {"interface": "1"}) == 0.5
    assert recall_of_target(boxes, (30, 20), (2, 3), {"in-vit:2": "3", "interface": "3c"}) == 0.0
    assert recall_of_target([], (30, 20), (2, 3), {}) is None
    assert recall_of_target([(40, 40, 50, 50)], (30, 20), (2, 3), {}) is None
