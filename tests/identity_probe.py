"""Runs an accuracy pass of a tiny model and says which of our modules had a function executed.

python tests/identity_probe.py FAMILY FOLDER prints one JSON line: [{"method", "benchmark", "executed": [file]}].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ("qwen3_vl", "internvl", "qwen2_5_vl", "llava", "llava_next")
METHODS = {  # of every hook point, with signals of the ViT and of the LLM
    "qwen3_vl": ("full", "quietprune", "fastv", "divprune", "tome", "downsample"),
    "internvl": ("full", "quietprune", "fastv", "visionzip", "pact", "random"),
    "qwen2_5_vl": ("full", "quietprune", "sparsevlm", "divprune", "saint"),
    "llava": ("full", "visionzip", "fastv", "vispruner", "tome"),
    "llava_next": ("full", "visionzip", "pyramiddrop", "divprune"),
}


@contextmanager
def executed(root: Path) -> Iterator[set[str]]:
    """Files of methods/ and harness/ of which a function is called within the block; running a module is no call."""
    seen, ours = set[str](), tuple(f"{root / package}/" for package in ("methods", "harness"))

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(ours) and not _at_import(frame):
            seen.add(Path(code.co_filename).relative_to(root).as_posix())

    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)


def _at_import(frame: FrameType | None) -> bool:
    """True inside a module that is being imported: its own statements, and what they call."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def main(family: str, folder: Path) -> list[dict[str, Any]]:
    import datasets  # noqa: F401  (its import is slow where calls are noted)

    from harness.budget.spec import BudgetSpec
    from harness.request.opening import open_bench
    from harness.request.request import Request
    from harness.run.accuracy import answerer_of

    model, fixtures, found = _checkpoint(family, folder), str(ROOT / "tests/fixtures"), []
    for benchmark in ("reference", "pope"):
        asked = Request("full", BudgetSpec("layer_average", 1.0), model, benchmark, limit=2, data_dir=fixtures)
        with executed(ROOT) as opening:
            bench = open_bench(asked)
        for method in METHODS[family]:
            name = f"{method}:init" if method == "quietprune" else method  # without a trained adapter
            with executed(ROOT) as answering:
                request = replace(asked, method=name, budget=BudgetSpec("layer_average", 0.75))
                cell = bench.cell(asked if method == "full" else request)
                with answerer_of(bench)(bench, cell) as answer:
                    assert all(answer(sample).error is None for sample in bench.samples)
            found.append({"method": method, "benchmark": benchmark, "executed": sorted(opening | answering)})
    return found


def _checkpoint(family: str, folder: Path) -> str:
    if family == "qwen3_vl":
        return "reference-a"
    import checkpoints

    return str(getattr(checkpoints, family)(folder))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
