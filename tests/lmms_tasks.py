"""lmms-eval's own tasks on data that a test writes, in the format of their data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import lmms_eval.tasks
from PIL import Image

from harness.benchmarks import open_benchmark


def suite_rows(count: int) -> list[dict[str, Any]]:
    """Rows as POPE has them: yes or no, several about each picture, on pictures of two sizes of the embedded suite."""
    benchmark = open_benchmark("reference")
    samples = [sample for sample in benchmark.samples if sample.category == "exist"]
    rows = []
    for number, sample in enumerate(samples[:count]):
        image = benchmark.load_image(sample, 0)
        rows.append(
            {
                "id": str(number),
                "question_id": str(number),
                "question": f" {sample.question}",
                "answer": sample.answer,
                "image_source": sample.images[0],
                "category": "random" if number % 2 else "popular",
                "image": image if number % 3 else image.crop((0, 0, 192, 128)),
            }
        )
    return rows


def pope(folder: Path, rows: list[dict[str, Any]], name: str = "pope_local", more: str = "") -> Path:
    """A folder with a task file that puts lmms-eval's POPE on these rows. more: lines of the file that change it."""
    folder.mkdir(parents=True, exist_ok=True)
    features = {key: datasets.Image() if key == "image" else datasets.Value("string") for key in rows[0]}
    table = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    table.to_parquet(folder / f"{name}.parquet")
    (folder / f"{name}.yaml").write_text(
        f"include: {Path(lmms_eval.tasks.__file__).parent}/pope/pope.yaml\ntask: {name}\ndataset_path: parquet\n"
        f"dataset_kwargs: {{data_files: {{test: {folder / name}.parquet}}}}\n{more}"
    )
    return folder


def plain_rows(count: int, size: tuple[int, int] = (48, 48)) -> list[dict[str, Any]]:
    """Rows about grey slopes, for models that know nothing."""
    return [
        {
            "id": str(number),
            "question_id": str(number),
            "question": f"is there a person on the left? {number}",
            "answer": ("yes", "no")[number % 2],
            "image_source": str(number),
            "category": "random",
            "image": Image.linear_gradient("L").rotate(20 * number).resize(size).convert("RGB"),
        }
        for number in range(count)
    ]
