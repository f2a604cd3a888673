"""Fixtures that several test modules share."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from harness.models.loading import OpenModel, open_model


@pytest.fixture(autouse=True)
def main_module() -> Iterator[None]:
    """Streamlit's AppTest puts its script in the place of `__main__`, where child processes look for their start."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def reference_a() -> OpenModel:
    """The embedded model, opened once."""
    return open_model("reference-a")


@pytest.fixture
def suite_folder(tmp_path: Path) -> Path:
    """Eight questions on four images of 128 x 96 (3 x 4 units of the embedded model); two images are quick."""
    return make_suite(tmp_path / "suite")


def make_suite(folder: Path) -> Path:
    """Write those questions into a folder."""
    (folder / "images").mkdir(parents=True)
    rows = []
    questions = {"read": "number on the red sign?", "exist": "is there a red circle?"}
    for number in range(4):
        image = f"images/{number}.png"
        Image.new("RGB", (128, 96), (60 * number, 0, 0)).save(folder / image)
        for family, answer in (("read", str(10 + number)), ("exist", "yes" if number else "no")):
            rows.append(
                {
                    "id": f"{family}-{number}",
                    "image": image,
                    "family": family,
                    "question": questions[family],
                    "answer": answer,
                    "boxes": [[0, 0, 32, 32]],
                    "quick": number < 2,
                }
            )
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
