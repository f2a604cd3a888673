"""Prints the curve of a training run from its log: `python -m harness.reference.curve runs/reference-a/log.jsonl`."""

import argparse
import json
from pathlib import Path

from harness.reference.words import FAMILIES


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
