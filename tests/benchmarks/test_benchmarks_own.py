"""A user's own questions: any of three formats, each mistake named with its row."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.benchmarks import open_benchmark
from harness.benchmarks.own import check, open_own
from harness.records.errors import CorruptBenchmark, HarnessError, UndecodableImage, UnknownBenchmark, UsageError
from harness.records.records import Record

FIVE = [
    {"id": "sign", "image": "0.png", "question": "What does it say?", "answer": ["12", "twelve"], "category": "read"},
    {"image": "0.png", "question": "Is there a dog?", "answer": "no"},
    {"image": "1.png", "question": "Which colour?", "answer": "b", "choices": ["red", "blue"]},
    {"images": ["0.png", "1.png"], "question": "Which is darker?", "answer": "the first", "cluster": "pair"},
    {"image": "1.png", "question": "What is it?", "answer": "square"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(2):
        Image.new("RGB", (128, 96), (90 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def mine(folder: Path) -> Path:
    return write(folder / "mine.jsonl", FIVE)


def refused(path: Path, error: type[HarnessError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        open_own(path)
    assert caught.value.exit_code == {CorruptBenchmark: 1}.get(error, 2)


def test_five_questions_are_a_benchmark(mine: Path):
    opened = open_benchmark(str(mine))
    assert [sample.id for sample in opened.samples] == ["sign", "2", "3", "4", "5"]
    assert opened.prompt(opened.samples[1]) == "Is there a dog?"  # as it stands, no suffix
    assert opened.prompt(opened.samples[2]) == (
        "Which colour?\nA. red\nB. blue\nAnswer with the option's letter from the given choices directly."
    )
    assert [len(opened.load_images(sample)) for sample in opened.samples] == [1, 1, 1, 2, 1]
    clusters = [sample.cluster for sample in opened.samples]
    assert clusters[0] == clusters[1] != clusters[2]  # by the image
    assert (opened.name, opened.samples[3].cluster, opened.samples[0].category) == ("mine.jsonl", "pair", "read")
    assert check(mine) == []


def test_each_question_is_scored_by_the_rule_that_fits_it(mine: Path):
    opened = open_own(mine)
    answers = ["Twelve.", "No, there is none", "B. blue", "the second", ""]
    scores = [opened.score(words, sample) for words, sample in zip(answers, opened.samples, strict=True)]
    assert scores == [1.0, 1.0, 1.0, 0.0, 0.0]
    records = [
        Record(sample.id, sample.cluster, sample.category, sample.answer, words, 0.0, 12, 6, (6,))
        for words, sample in zip(["12", "perhaps", "blue", "the first", "square"], opened.samples, strict=True)
    ]
    assert opened.metrics(records) == {"fitting_accuracy": 0.6, "unparsed_ratio": 0.4}


def test_tsv_and_parquet_say_the_same_as_jsonl(folder: Path):
    rows = [{"id": str(n), "image": "0.png", "question": "Which?", "A": "x", "B": "y", "answer": "A"} for n in range(2)]
    with (folder / "mine.tsv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0].keys(), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    import duckdb

    write(folder / "mine.jsonl", rows)
    duckdb.execute(f"COPY (FROM read_json('{folder / 'mine.jsonl'}')) TO '{folder / 'mine.parquet'}' (FORMAT parquet)")
    one, *others = [open_own(folder / f"mine.{ending}").samples for ending in ("jsonl", "tsv", "parquet")]
    assert others == [one, one]


def test_a_folder_may_choose_a_rule(folder: Path):
    write(folder / "questions.jsonl", FIVE[:1])
    facts = {"title": "Signs", "rule": "contains", "max_new_tokens": 5, "licence": "CC0-1.0"}
    (folder / "benchmark.json").write_text(json.dumps(facts))
    opened = open_own(folder)
    assert (opened.title, opened.max_new_tokens, opened.licence, opened.name) == ("Signs", 5, "CC0-1.0", folder.name)
    assert opened.score("it says twelve or so", opened.samples[0]) == 1.0
    before = opened.revision
    (folder / "benchmark.json").write_text(json.dumps({**facts, "rule": "exact_match"}))
    assert open_own(folder).revision != before


def test_an_image_may_stand_in_the_row_itself(folder: Path):
    cell = base64.b64encode((folder / "1.png").read_bytes()).decode()
    opened = open_own(write(folder / "mine.jsonl", [{"image": cell, "question": "?", "answer": "a"}]))
    assert opened.load_images(opened.samples[0])[0].size == (128, 96)


def test_the_revision_follows_the_questions_and_the_pixels(mine: Path):
    before = open_own(mine).revision
    Image.new("RGB", (128, 96), (1, 2, 3)).save(mine.parent / "1.png")
    after = open_own(mine).revision
    write(mine, FIVE[:4])
    assert len({before, after, open_own(mine).revision}) == 3


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": "0.png", "question": "?"}, "row 2 has no answer; its columns are image, question"),
        ({"image": "0.png", "answer": "a"}, "row 2 has no question"),
        ({"question": "?", "answer": "a"}, "row 2 has no image"),
        ({"image": "0.png", "question": "?", "answer": []}, "row 2 has no answer"),
        (
            {"image": "0.png", "question": "?", "answer": "C", "choices": ["x", "y"]},
            "row 2 has choices and the answer 'C'",
        ),
        ({"image": "0.png", "question": "?", "answer": "a", "id": "1"}, "the id '1' twice"),
    ],
)
def test_a_wrong_row_is_named(folder: Path, row: dict[str, Any], words: str):
    good = {"image": "0.png", "question": "?", "answer": "a"}
    refused(write(folder / "mine.jsonl", [good, row]), CorruptBenchmark, words)


def test_a_wrong_file_is_named(folder: Path):
    refused(
        folder / "none.jsonl", UnknownBenchmark, "no benchmark at .*none.jsonl; give a file or a folder with questions"
    )
    (folder / "mine.csv").write_text("question,answer\n")
    refused(folder / "mine.csv", UsageError, "use one of .jsonl, .tsv, .parquet")
    for name, content, words in (
        ("a.jsonl", "{", "line 1 is no JSON"),
        ("b.jsonl", "[1]", "line 1 is no JSON object"),
        ("c.jsonl", "\n", "has no rows"),
        ("d.tsv", "image\tquestion\tanswer\n0.png\twhat\n", "line 2 has not as many cells"),
        ("e.parquet", "PAR1", "is no readable parquet file"),
    ):
        (folder / name).write_text(content)
        refused(folder / name, CorruptBenchmark, words)
    (folder / "f.jsonl").write_bytes(b"\xff\xfe")
    refused(folder / "f.jsonl", CorruptBenchmark, "is not UTF-8")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ("{", "is no JSON"),
        ('{"rule": "best"}', "asks for the rule 'best'; there are fitting, exact_match"),
        ('{"tokens": 5}', "'tokens' is 5; it may give title"),
        ("[]", "it may give title"),
    ],
)
def test_a_wrong_description_is_named(folder: Path, facts: str, words: str):
    write(folder / "questions.jsonl", FIVE)
    (folder / "benchmark.json").write_text(facts)
    refused(folder, CorruptBenchmark, words)


def test_checking_decodes_every_image_and_names_those_that_fail(mine: Path):
    (mine.parent / "1.png").write_bytes(b"torn")
    assert [line.partition(":")[0] for line in check(mine)] == ["3", "4", "5"]
    opened = open_own(mine)
    with pytest.raises(UndecodableImage, match=r"^cannot decode 1\.png: it is no image$"):
        opened.load_images(opened.samples[2])
    (mine.parent / "1.png").unlink()
    with pytest.raises(UndecodableImage, match=r"^cannot decode 1\.png: No such file or directory$"):
        opened.load_images(opened.samples[2])  # no path of this machine
