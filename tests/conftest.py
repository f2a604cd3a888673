"""Fixtures that several test modules share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def suite_folder(tmp_path: Path) -> Path:
    """A suite of eight questions on four images of 64 x 48; two families; the first two images are quick."""
    folder = tmp_path / "suite"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(4):
        image = f"images/{number}.png"
        Image.new("RGB", (64, 48), (60 * number, 0, 0)).save(folder / image)
        for family, answer in (("read", str(10 + number)), ("exist", "yes" if number else "no")):
            rows.append(
                {
                    "id": f"{family}-{number}",
                    "image": image,
                    "family": family,
                    "question": f"question {family} {number}?",
                    "answer": answer,
                    "boxes": [[0, 0, 16, 16]],
                    "quick": number < 2,
                }
            )
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
