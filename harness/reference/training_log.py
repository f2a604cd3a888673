"""The log of a training run: one JSON line every LOG_SECONDS, means since the last line."""

import json
import time
from pathlib import Path

import numpy as np

from harness.reference.words import FAMILIES

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
