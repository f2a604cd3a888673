"""The frozen suite is whole, balanced, readable without its materials, and follows from its generator."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image, features

from harness.reference.paths import SUITE
from harness.reference.suite import damaged_files, load_questions
from harness.reference_training import materials
from harness.reference_training.asking import ask
from harness.reference_training.scenes import Scene, Thing
from harness.reference_training.words import COLOUR_NAMES, FAMILIES, SHAPE_NAMES

LIBWEBP = "1.6.0"  # the encoder that wrote the frozen images; another version may write other bytes for the same pixels


@pytest.fixture(scope="module")
def questions():
    return load_questions()


def test_every_file_has_its_checksum():
    assert damaged_files() == []


def test_a_changed_file_is_named(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "questions.jsonl").write_text("changed")
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  questions.jsonl\n" + "0" * 64 + "  images/0000.webp\n")
    assert damaged_files(tmp_path) == ["questions.jsonl", "images/0000.webp"]


def test_the_suite_stays_below_eight_megabytes():
    assert sum(path.stat().st_size for path in SUITE.rglob("*") if path.is_file()) <= 8_000_000


def test_there_are_enough_questions_of_each_main_family(questions):
    counts = Counter(question.family for question in questions)
    assert len(questions) >= 2000
    assert set(counts) <= set(FAMILIES)
    assert counts["read"] >= 500
    for family in ("read", "exist", "color", "count"):
        assert counts[family] / len(questions) >= 0.15, family


def test_ids_are_unique_and_no_question_is_asked_twice_of_an_image(questions):
    assert len({question.id for question in questions}) == len(questions)
    assert len({(question.image, question.question) for question in questions}) == len(questions)


def test_every_image_is_256_pixels_and_every_box_lies_inside(questions):
    for image in sorted({question.image for question in questions}):
        with Image.open(SUITE / image) as opened:
            assert opened.size == (256, 256), image
    for question in questions:
        assert question.boxes, question.id
        for x0, y0, x1, y1 in question.boxes:
            assert 0 <= x0 < x1 <= 256 and 0 <= y0 < y1 <= 256, question.id


def test_the_quick_split_keeps_the_shares_of_families(questions):
    quick = Counter(question.family for question in questions if question.quick)
    whole = Counter(question.family for question in questions)
    assert sum(quick.values()) == 500
    for family, count in whole.items():
        assert abs(quick[family] - 500 * count / len(questions)) <= 1, family


def test_the_majority_answer_is_the_most_frequent_one(questions):
    for family in {question.family for question in questions}:
        answers = Counter(question.answer for question in questions if question.family == family)
        majority = {question.majority for question in questions if question.family == family}
        assert len(majority) == 1
        assert answers[majority.pop()] == max(answers.values()), family


def test_no_family_can_be_answered_without_looking(questions):
    for family, most in {
        "read": 0.05,
        "exist": 0.55,
        "color": 0.25,
        "count": 0.35,
        "where": 0.35,
        "digit": 0.2,
    }.items():
        answers = Counter(question.answer for question in questions if question.family == family)
        assert max(answers.values()) / max(1, sum(answers.values())) <= most, family


def test_the_wording_does_not_give_the_answer_away(questions):
    """The best guess from the words alone (leave-one-out majority of equal questions) is near the majority answer."""
    for family, most in {"read": 0.1, "exist": 0.68, "color": 0.35, "count": 0.45, "where": 0.45, "digit": 0.3}.items():
        asked = [question for question in questions if question.family == family]
        answers = Counter((question.question, question.answer) for question in asked)
        right = 0
        for question in asked:
            others = {a: n - (a == question.answer) for (q, a), n in answers.items() if q == question.question}
            best = max(sorted(others), key=others.get)
            right += others[best] > 0 and best == question.answer
        assert right / max(1, len(asked)) <= most, family


def test_reading_needs_neither_numpy_nor_torch():
    code = (
        "import sys; from harness.reference.suite import load_questions; load_questions();"
        "print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_train_and_test_share_no_photograph_font_or_scan():
    assert not set(materials.PHOTOGRAPHS["train"]) & set(materials.PHOTOGRAPHS["test"])
    assert not set(materials.NUMBER_FONTS["train"]) & set(materials.NUMBER_FONTS["test"])
    assert not set(materials.PICTOGRAM_FONTS["train"]) & set(materials.PICTOGRAM_FONTS["test"])
    assert len(materials.PHOTOGRAPHS["test"]) >= 4


def test_train_and_test_draw_different_pixels():
    _need_materials()
    train, test = materials.load_materials("train"), materials.load_materials("test")
    assert len(train.digits) + len(test.digits) == 1797
    assert not {scan.tobytes() for scan in train.digits} & {scan.tobytes() for scan in test.digits}
    assert not {photo.tobytes() for photo in train.photographs} & {photo.tobytes() for photo in test.photographs}
    for shape in SHAPE_NAMES:
        drawn = {(mask.shape, mask.tobytes()) for mask in train.pictograms[shape]}
        assert not drawn & {(mask.shape, mask.tobytes()) for mask in test.pictograms[shape]}, shape


def test_the_generator_writes_the_frozen_images_again(tmp_path):
    _need_materials()
    if features.version("webp") != LIBWEBP:
        pytest.skip(f"the frozen images were written by libwebp {LIBWEBP}, this Pillow has {features.version('webp')}")
    from harness.reference_training.make_suite import make_suite

    made = make_suite(tmp_path, seed=0, scale=0.02)
    frozen = load_questions()
    for one, other in zip(made[:12], frozen[:12], strict=True):  # the reading scenes come first
        assert (one.image, one.question, one.answer, one.boxes) == (
            other.image,
            other.question,
            other.answer,
            other.boxes,
        )
    for name in sorted({question.image for question in made[:12]}):
        assert (tmp_path / name).read_bytes() == (SUITE / name).read_bytes(), name
    lines = (tmp_path / "questions.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [question.id for question in made]
    assert damaged_files(tmp_path) == []


RED, BLUE = COLOUR_NAMES.index("red"), COLOUR_NAMES.index("blue")
STAR, HEART = SHAPE_NAMES.index("star"), SHAPE_NAMES.index("heart")
SCENE = Scene(
    np.zeros((256, 256, 3), dtype=np.uint8),
    (
        Thing("shape", RED, STAR, -1, (10, 10, 40, 40), ()),
        Thing("shape", RED, STAR, -1, (60, 10, 90, 40), ()),
        Thing("shape", BLUE, HEART, -1, (200, 210, 230, 240), ()),
        Thing("sign", BLUE, -1, 47, (100, 100, 140, 130), ((106, 106, 118, 124), (118, 106, 134, 124))),
        Thing("card", 1, -1, 6, (150, 30, 180, 60), ((153, 33, 177, 57),)),
    ),
    crowded=False,
)


@pytest.mark.parametrize(
    "family, wanted",
    [
        ("read", {("number on the blue sign?", "47")}),
        ("digit", {("digit on the black card?", "6")}),
        ("color", {("color of the heart?", "blue")}),
        ("where", {("where is the heart?", "bottom right")}),
        ("count", {("how many stars?", "2"), ("how many hearts?", "1")}),
    ],
)
def test_questions_follow_the_scene(family, wanted):
    asked = [ask(SCENE, family, np.random.default_rng(seed)) for seed in range(30)]
    assert {(one.question, one.answer) for one in asked} == wanted


def test_negatives_name_a_shape_that_is_there_in_another_colour():
    asked = [ask(SCENE, "exist", np.random.default_rng(seed)) for seed in range(200)]
    assert {one.answer for one in asked} == {"yes", "no"}
    for one in asked:
        colour, shape = one.question.removeprefix("is there a ").removesuffix("?").split()
        there = {(COLOUR_NAMES[t.colour], SHAPE_NAMES[t.shape]) for t in SCENE.things if t.kind == "shape"}
        assert ((colour, shape) in there) == (one.answer == "yes")
        assert shape in {name for _, name in there}
        assert one.boxes
    negatives = Counter(one.question for one in asked if one.answer == "no")
    assert negatives["is there a blue star?"] > 0.5 * sum(n for q, n in negatives.items() if "star" in q)


def _need_materials():
    missing = materials.missing_materials()
    if missing:
        pytest.skip(f"the generator's materials are not installed: {missing[0]}")
