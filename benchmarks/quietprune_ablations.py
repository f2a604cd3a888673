"""What each part of QuietPrune gives on the reference model: the part is left out, the adapter is trained again.

    python benchmarks/quietprune_ablations.py --work runs/ablations --write docs/quietprune-ablations.md

Every variant's adapter is trained by `harness train-adapter` with the same recipe and seed, into a folder that shares
the model's weights; `harness sweep` then answers the quick split. Both go on where they stopped when the command is
given again. Differences are in points of accuracy, paired by question and clustered by image, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.errors import HarnessError
from harness.models.loading import resolve
from harness.stats import Interval, paired_difference
from harness.store import Frames, load

MODEL = "reference-a"
RECIPE = {"steps": 100, "batch": 8, "learning-rate": 0.003, "guidance-weight": 1.0}
KEEP_RATIO = 0.42  # a quarter goes at each of the three cuts


@dataclass(frozen=True)
class Variant:
    """run: the method as it runs; train: the words that say from what its adapter is trained; adapter_of: whose adapter
    it takes instead.

    against: the variant that it is compared with; printed: the paper's deltas in RA (InternVL3-1B, Qwen3-VL-4B).
    """

    name: str
    says: str
    run: str = "quietprune"
    train: tuple[str, ...] = ("quietprune:init",)
    keep_ratio: float = KEEP_RATIO
    adapter_of: str | None = None
    against: str = "whole"
    printed: str = ""

    @property
    def folder(self) -> str:
        return self.adapter_of or self.name


VARIANTS = (
    Variant("whole", "the method as it is, trained by the same recipe"),
    Variant("saliency", "received attention instead of the question", "quietprune:saliency", adapter_of="whole",
            printed="-4.11, -5.94"),
    Variant("random-init", "the adapter starts from random weights", train=("quietprune:random-init",),
            printed="-3.25, -2.94"),
    Variant("untrained", "the adapter stays as it was initialised", "quietprune:init", adapter_of="whole"),
    Variant("no-aggregation", "what is dropped is gone", "quietprune:no-aggregation",
            ("quietprune:init", "--set", "aggregate=false"), printed="-0.50, -0.84"),
    Variant("unstructured", "single patches stay instead of 2x2 groups", "quietprune:unstructured",
            adapter_of="no-aggregation", against="no-aggregation", printed="worse, figure not known"),
    Variant("rate-75", "trained with 75 % kept", keep_ratio=0.75),
    Variant("rate-25", "trained with 25 % kept", keep_ratio=0.25),
)  # fmt: skip


def prepare(work: Path, variant: Variant) -> Path:
    """The variant's model folder: the weights as links, its own adapter, trained if it is not there yet."""
    folder = work / variant.folder
    folder.mkdir(parents=True, exist_ok=True)
    for file in Path(resolve(MODEL)).iterdir():
        link = folder / file.name
        if file.suffix != ".safetensors" or file.stem == "model":
            link.exists() or link.symlink_to(file.resolve())
    if variant.adapter_of is None and not (folder / "quietprune.safetensors").is_file():
        recipe = [word for key, value in RECIPE.items() for word in (f"--{key}", str(value))]
        harness("train-adapter", "--method", *variant.train, "--model", str(folder),
                "--keep-ratio", str(variant.keep_ratio), *recipe)  # fmt: skip
    return folder


def answer(folders: Iterable[tuple[Path, set[str]]], budgets: str, store: Path) -> None:
    """Every method of every folder at every budget, in one store."""
    for folder, methods in folders:
        harness("sweep", "--models", str(folder), "--methods", ",".join(sorted(methods)), "--budgets", budgets,
                "--no-controls", "--no-timing", "--store", str(store))  # fmt: skip


def harness(*words: str) -> None:
    """A command of ours in this environment. Raises CalledProcessError when it fails."""
    subprocess.run([sys.executable, "-c", "from harness.cli import main; main()", *words], check=True)


def table(frames: Frames, work: Path, budgets: list[str]) -> str:
    """Markdown: each variant's accuracy at each budget, and what it loses or gains against its counterpart."""
    runs = frames.runs.set_index("run_id")
    samples = frames.samples.merge(runs[["model", "method", "preset", "budget"]], left_on="run_id", right_index=True)
    lines = [
        "| left out | " + " | ".join(f"accuracy at {one} | points" for one in budgets) + " | the paper, points of RA |",
        "|---|" + "---|---|" * len(budgets) + "---|",
    ]
    named = {variant.name: variant for variant in VARIANTS}
    for variant in VARIANTS:
        cells = []
        for budget in budgets:
            own, other = (_scores(samples, work, one, budget) for one in (variant, named[variant.against]))
            points = "" if variant.name == variant.against else _points(own, other)
            cells += [f"{100 * own['score'].mean():.1f}", points]
        against = "" if variant.against == "whole" else f" (against {variant.against})"
        lines.append(f"| {variant.name}: {variant.says}{against} | {' | '.join(cells)} | {variant.printed} |")
    return "\n".join(lines)


def _scores(samples: pd.DataFrame, work: Path, variant: Variant, budget: str) -> pd.DataFrame:
    name, _, preset = variant.run.partition(":")
    own = samples[
        (samples["model"] == str(work / variant.folder)) & (samples["method"] == name)
        & (samples["preset"].fillna("") == preset) & (samples["budget"] == budget)
    ]  # fmt: skip
    if own.empty:
        raise HarnessError(f"the store has no run of {variant.name} at {budget}; give the same command again")
    return own.set_index("sample_id")[["score", "cluster"]]


def _points(own: pd.DataFrame, other: pd.DataFrame) -> str:
    joined = own.join(other, rsuffix="_other", how="inner")
    found: Interval = paired_difference(joined["score"], joined["score_other"], joined["cluster"])
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--budgets", default="50%,25%,11%")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    asked = parser.parse_args()
    wanted: dict[Path, set[str]] = {}
    for variant in VARIANTS:
        wanted.setdefault(prepare(asked.work, variant), set()).add(variant.run)
    store = asked.work / "ablations.duckdb"
    answer(wanted.items(), asked.budgets, store)
    text = page(load(store), asked.work, asked.budgets.split(","))
    asked.write.write_text(text) if asked.write else print(text)


def page(frames: Frames, work: Path, budgets: list[str]) -> str:
    made = __doc__.split("\n\n")
    recipe = ", ".join(f"{key} {value}" for key, value in RECIPE.items())
    about = f"{MODEL}, quick split. Recipe: {recipe}; {100 * KEEP_RATIO:g} % kept in training unless said otherwise."
    return "\n\n".join(
        [
            "# QuietPrune, part by part",
            f"Made by\n\n{made[1]}",
            about,
            made[2].strip(),
            table(frames, work, budgets),
            "",
        ]
    )


if __name__ == "__main__":
    main()
