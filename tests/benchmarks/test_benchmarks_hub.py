"""Data sets from a hub on loopback, through the real client, which reads its settings once: each look is a process.

The fixture of POPE lies there under its old name only, `many/rows` has one row in each row group, `plain/text` is no
parquet.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.benchmarks.declared import open_declared
from harness.benchmarks.registry import declarations
from harness.records.errors import BenchmarkUnavailable

TESTS = Path(__file__).parents[1]
COMMIT = "4db1276" + "0" * 33
ROWS = 12
LOOK = """
import json, sys, warnings
from dataclasses import replace
from harness.benchmarks.declared import open_declared
from harness.benchmarks.registry import declarations
from harness.records.errors import HarnessError

for case in json.loads(sys.argv[1]):
    declared = declarations()["pope"]
    source = replace(declared.source, **{key: tuple(value) if key == "ids" else value for key, value in case["source"].items()})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = open_declared(replace(declared, source=source), stream=case["stream"])
            limit = case.get("limit")
            answer = {
                "revision": found.revision.partition("+")[0],
                "ids": [one.id for one in found.samples],
                "images": [image.tobytes().hex()[:64] for one in found.samples[:limit] for image in found.load_images(one)],
                "told": [str(one.message) for one in told],
            }
        except HarnessError as error:
            answer = {"error": type(error).__name__, "words": str(error)}
    print("ANSWER", json.dumps(answer))
"""  # noqa: E501
Looks = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hub holds."""
    from datasets import Dataset
    from pyarrow.parquet import write_table

    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(TESTS / "fixtures/pope", folder / "lmms-lab/POPE")
    noise, rows = np.random.default_rng(0), []
    for number in range(ROWS):
        file = folder / "noise.png"
        Image.fromarray(noise.integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(file)
        image = {"bytes": file.read_bytes(), "path": None}
        rows.append({"id": str(number), "question_id": str(number), "question": "Is there a cup?", "answer": "no",
                     "image_source": str(number), "category": "random", "image": image})  # fmt: skip
    (folder / "many/rows").mkdir(parents=True)
    write_table(Dataset.from_list(rows).data.table, folder / "many/rows/test-0.parquet", row_group_size=1)
    (folder / "plain/text").mkdir(parents=True)
    (folder / "plain/text/test.csv").write_text("id,question\n1,a\n")
    return folder


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[tuple[str, Path]]:
    """The hub's address, and the file where it writes what it sent."""
    sent = root.with_name("sent")
    with sent.open("w") as out:
        hub = subprocess.Popen([sys.executable, str(TESTS / "hub.py"), str(root)], stdout=out)
    try:
        while not (port := sent.read_text().partition("\n")[0]):
            assert hub.poll() is None
        yield f"http://127.0.0.1:{port}", sent
    finally:
        hub.kill()
        hub.wait()


def look(home: Path, cases: Sequence[Mapping[str, Any]], **settings: str) -> list[dict[str, Any]]:
    """What a process with its own cache finds in each case."""
    environment = {**os.environ, "HF_HOME": str(home), **settings}
    environment.pop("HF_DATASETS_CACHE", None)
    command = [sys.executable, "-c", LOOK, json.dumps(cases)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line.removeprefix("ANSWER ")) for line in ran.stdout.splitlines() if line.startswith("ANSWER ")]


def case(stream: bool = False, limit: int | None = None, **source: Any) -> dict[str, Any]:
    return {"source": source, "stream": stream, "limit": limit}


def test_the_old_name_is_tried_and_commit_and_rows_are_the_same_streamed_cached_and_offline(
    served: tuple[str, Path], tmp_path: Path
):
    streamed, cached, pinned = look(
        tmp_path, [case(stream=True), case(), case(revision="4db1276")], HF_ENDPOINT=served[0]
    )
    assert cached["revision"] == f"lmms-lab/POPE@{COMMIT}"  # lmms-lab-encoder/POPE is not there
    assert len(cached["images"]) == 3
    assert cached["told"] == ["pope has 3 rows, its card said 9000; scores may not compare with papers'"]
    assert streamed == cached == pinned
    again, streaming, other = look(
        tmp_path, [case(), case(stream=True), case(revision="beef")], HF_HUB_OFFLINE="1"
    )  # the new name cannot be reached, the old one is in the cache
    assert again == streaming == cached
    assert other["error"] == "BenchmarkUnavailable"


def test_streaming_fetches_the_texts_and_the_images_that_are_asked_for(
    served: tuple[str, Path], root: Path, tmp_path: Path
):
    address, sent = served
    before = len(sent.read_text().splitlines())
    whole = (root / "many/rows/test-0.parquet").stat().st_size
    [found] = look(tmp_path, [case(stream=True, limit=2, ids=["many/rows"])], HF_ENDPOINT=address)
    assert (len(found["ids"]), len(found["images"])) == (ROWS, 2)
    lines = [line.split() for line in sent.read_text().splitlines()[before:]]
    assert whole / ROWS < sum(int(size) for name, size in lines if name == "test-0.parquet") < whole / 2
    assert not list(tmp_path.rglob("*.arrow")) and not list(tmp_path.rglob("*.parquet"))


def test_what_is_not_parquet_or_has_no_such_split_is_told(served: tuple[str, Path], tmp_path: Path):
    text, split = look(
        tmp_path, [case(stream=True, ids=["plain/text"]), case(stream=True, split="val")], HF_ENDPOINT=served[0]
    )
    assert text["error"] == split["error"] == "CorruptBenchmark"
    assert "plain/text is not kept as parquet and cannot be streamed; leave out --stream" in text["words"]
    assert 'Unknown split "val"; it has test' in split["words"]


def test_without_a_network_the_error_says_how_to_bring_the_data(tmp_path: Path):
    for found in look(tmp_path, [case(), case(stream=True)], HF_HUB_OFFLINE="1"):
        assert found["error"] == "BenchmarkUnavailable"
        assert "`hf download --repo-type dataset lmms-lab-encoder/POPE --local-dir DIR/NAME`" in found["words"]


def test_a_connection_that_is_lost_says_nothing_about_a_row(monkeypatch: pytest.MonkeyPatch):
    from pyarrow.parquet import ParquetFile

    found = open_declared(declarations()["pope"], TESTS / "fixtures", stream=True)
    found.load_images(found.samples[0])

    def lost(*_: Any, **__: Any) -> None:
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(ParquetFile, "read_row_group", lost)
    again = open_declared(declarations()["pope"], TESTS / "fixtures", stream=True)
    with pytest.raises(BenchmarkUnavailable, match=r"cannot be fetched \(reset by peer\); give the same command again"):
        again.load_images(again.samples[0])
