"""What the numbering of positions does to a score: each method with its authors' policy and with the other one.

    python benchmarks/positions.py --work runs/positions --write docs/positions.md

Only the positions of what stays differ (inside an LLM later cuts may then choose otherwise). *original*: survivors stay
where they stood in the prompt, with gaps. *renumber*: the gaps are closed, as LLaVA codebases do when they cut the
embeddings. Models with M-RoPE keep their ids of rows and columns and know no such choice. Differences are in points of
accuracy, paired by question and clustered by image, with 95 % intervals. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

from harness.records.errors import HarnessError
from harness.stats import paired_difference
from harness.store.database import load
from methods import get

MODEL = "reference-b"
METHODS = ("random", "divprune", "vispruner", "cdpruner", "pyramiddrop", "sparsevlm", "visionzip", "tome")
OTHER = {"original": "renumber", "renumber": "original"}
FILE = """from methods.{name} import {kind}

class Other({kind}):
    name = "{name}_{policy}"
    positions = "{policy}"
"""


def variants(work: Path) -> dict[str, str]:
    """Method -> the file of its twin with the other policy, written into `work`."""
    work.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in METHODS:
        kind = get(name)
        file = work / f"{name}_{OTHER[kind.positions]}.py"
        file.write_text(FILE.format(name=name, kind=kind.__name__, policy=OTHER[kind.positions]))
        found[name] = str(file)
    return found


def sweep(methods: list[str], budgets: str, store: Path) -> None:
    """Answer the quick split. Raises CalledProcessError when the command fails."""
    words = ["--methods", ",".join(methods), "--models", MODEL, "--budgets", budgets, "--seeds", "1"]
    words += ["--no-controls", "--no-timing", "--store", str(store)]
    subprocess.run([sys.executable, "-c", "from harness.cli import main; main()", "sweep", *words], check=True)


def table(store: Path, twins: dict[str, str], budgets: list[str]) -> str:
    frames = load(store)
    runs = frames.runs.set_index("run_id")
    samples = frames.samples.merge(runs[["method", "budget"]], left_on="run_id", right_index=True)
    lines = [
        "| method | its own policy | "
        + " | ".join(f"renumber {one} | original {one} | points lost" for one in budgets)
        + " |",
        "|---|---|" + "---|---|---|" * len(budgets),
    ]
    for name, file in twins.items():
        own, cells = get(name).positions, []
        for budget in budgets:
            by_policy = {own: _scores(samples, name, budget), OTHER[own]: _scores(samples, Path(file).name, budget)}
            joined = by_policy["renumber"].join(by_policy["original"]["score"].rename("score_original"), how="inner")
            found = paired_difference(joined["score"], joined["score_original"], joined["cluster"])
            cells += [f"{100 * joined[column].mean():.1f}" for column in ("score", "score_original")]
            cells.append(f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]")
        lines.append(f"| {name} | {own} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _scores(samples: pd.DataFrame, method: str, budget: str) -> pd.DataFrame:
    own = samples[samples["method"].str.endswith(method) & (samples["budget"] == budget)]
    if own.empty:
        raise HarnessError(f"the store has no run of {method} at {budget}; give the same command again")
    return own.set_index("sample_id")[["score", "cluster"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/positions"))
    parser.add_argument("--budgets", default="50%")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    asked = parser.parse_args()
    twins, store = variants(asked.work), asked.work / "positions.duckdb"
    sweep([*METHODS, *twins.values()], asked.budgets, store)
    made = __doc__.split("\n\n")
    parts = ("# Positions of what stays", f"Made by\n\n{made[1]}", f"{MODEL}, quick split.", made[2].strip())
    text = "\n\n".join((*parts, table(store, twins, asked.budgets.split(",")))) + "\n"
    asked.write.write_text(text) if asked.write else print(text)


if __name__ == "__main__":
    main()
