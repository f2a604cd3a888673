"""The log of a training run: one JSON line every LOG_SECONDS, means since the last line."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from harness.reference_training.words import FAMILIES

LOG_SECONDS = 30.0


class Log:
    """Means of measurements since the last line, written as one JSON line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._clear()

    def _clear(self) -> None:
        self.since, self.seen = time.perf_counter(), []

    def add(self, measured: dict) -> None:
        """Take one step's measurements; write when LOG_SECONDS have passed."""
        self.seen.append(measured)
        if time.perf_counter() - self.since >= LOG_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the line of what was seen since the last one."""
        if not self.seen:
            return
        seconds = time.perf_counter() - self.since
        counts = sum(m["counts"] for m in self.seen)
        line = {
            "elapsed_s": round(self.seen[-1]["elapsed_s"], 1),
            "step": self.seen[-1]["step"],
            "side": self.seen[-1]["side"],
            "rate": round(self.seen[-1]["rate"], 4),
            "images_per_s": round(sum(m["images"] for m in self.seen) / seconds, 1),
            "data_s": round(float(np.mean([m["data_s"] for m in self.seen])), 3),
            "dense": round(float(np.mean([m["dense"] for m in self.seen])), 3),
            "norm": round(float(np.mean([m["norm"] for m in self.seen])), 2),
        }
        if self.seen[-1]["answer"] is not None:
            line["answer"] = round(float(np.mean([m["answer"] for m in self.seen if m["answer"] is not None])), 4)
            line["exact"] = {
                name: round(float(right / asked), 3)
                for name, (right, asked) in zip(FAMILIES, counts, strict=True)
                if asked > 0
            }
        if self.seen[-1]["gaze"] is not None:
            line["gaze"] = round(float(np.mean([m["gaze"] for m in self.seen if m["gaze"] is not None])), 3)
            line["word"] = round(float(np.mean([m["word"] for m in self.seen if m["word"] is not None])), 3)
        line["labels"] = {
            name: round(float(np.mean([m["labels"][name] for m in self.seen])), 3) for name in self.seen[-1]["labels"]
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._clear()


def read_log(path: Path) -> list[dict]:
    """The log's lines in order. Where a run was resumed, lines of the branch that was given up are left out."""
    kept: list[dict] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        while kept and kept[-1]["elapsed_s"] >= line["elapsed_s"]:
            kept.pop()
        kept.append(line)
    return kept


def rows(lines: list[dict], every_s: float) -> list[str]:
    """A Markdown table: one row per `every_s` seconds of training, means of the lines in it.

    `labels` are the dense read-outs from visual tokens (kind of thing, both digits of signs); families are exact match
    on training scenes, which are never seen twice."""
    names = ("kind", "tens", "ones")
    head = ["minute", "px", "images/s", "rate", *names, "answer loss", *FAMILIES]
    table = [" | ".join(head), " | ".join("---" for _ in head)]
    buckets: dict[int, list[dict]] = {}
    for line in lines:
        buckets.setdefault(int(line["elapsed_s"] // every_s), []).append(line)
    for bucket, held in sorted(buckets.items()):
        cells = [f"{(bucket + 1) * every_s / 60:.0f}", str(held[-1]["side"]), f"{_mean(held, 'images_per_s'):.1f}"]
        cells.append(f"{held[-1]['rate']:.2f}")
        cells += [f"{sum(line['labels'][f'unit_{name}'] for line in held) / len(held):.2f}" for name in names]
        spoken = [line for line in held if "answer" in line]
        cells.append(f"{_mean(spoken, 'answer'):.3f}" if spoken else "")
        for family in FAMILIES:
            values = [line["exact"][family] for line in spoken if family in line["exact"]]
            cells.append(f"{sum(values) / len(values):.2f}" if values else "")
        table.append(" | ".join(cells))
    return [f"| {row} |" for row in table]


def _mean(lines: list[dict], key: str) -> float:
    return sum(line[key] for line in lines) / len(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--every-s", type=float, default=300.0)
    asked = parser.parse_args()
    for row in rows(read_log(asked.log), asked.every_s):
        print(row)


if __name__ == "__main__":
    main()
