"""What each part of QuietPrune gives on the reference model, and what may mend it: one thing is changed, the adapter is
trained again.

    python benchmarks/quietprune_ablations.py --work runs/ablations --write docs/quietprune-ablations.md

Every variant's adapter is trained by `harness train-adapter` with the same recipe and seed, into a folder that shares
the model's weights; `harness sweep` then answers the quick split. Both go on where they stopped when the command is
given again. Differences are in points of accuracy, paired by question and clustered by image, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from harness.models.registry import resolve
from harness.records.errors import HarnessError
from harness.stats import Interval, paired_difference
from harness.store.database import Frames, load

MODEL = "reference-a"
RECIPE: Mapping[str, float | str] = {
    "steps": 100, "batch": 8, "learning-rate": 0.003, "guidance-weight": 1.0, "keep-ratio": 0.42,
}  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """run: the method as it runs; train: from what its adapter is trained; adapter_of: whose adapter it takes instead;
    settings: of training and run; recipe: where it differs from RECIPE.

    against: the variant that it is compared with; printed: the paper's deltas in RA (InternVL3-1B, Qwen3-VL-4B).
    """

    name: str
    says: str
    run: str = "quietprune"
    train: str = "quietprune:init"
    settings: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, float | str] = field(default_factory=dict)
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
    Variant("random-init", "the adapter starts from random weights", train="quietprune:random-init",
            printed="-3.25, -2.94"),
    Variant("untrained", "the adapter stays as it was initialised", "quietprune:init", adapter_of="whole"),
    Variant("no-aggregation", "what is dropped is gone", "quietprune:no-aggregation",
            settings={"aggregate": "false"}, printed="-0.50, -0.84"),
    Variant("unstructured", "single patches stay instead of 2x2 groups", "quietprune:unstructured",
            adapter_of="no-aggregation", against="no-aggregation", printed="worse, figure not known"),
    Variant("rate-75", "trained with 75 % kept", recipe={"keep-ratio": 0.75}),
    Variant("rate-25", "trained with 25 % kept", recipe={"keep-ratio": 0.25}),
    Variant("published-loss", "trained without the guidance term, which is ours", recipe={"guidance-weight": 0.0}),
    Variant("published-longer", "without that term, six times as many steps", against="published-loss",
            recipe={"guidance-weight": 0.0, "steps": 600}),
    Variant("linear", "each cut drops as many", settings={"schedule": "linear"}),
    Variant("late", "all is dropped at the last cut (3/4 of the ViT)", settings={"schedule": "late"}),
    Variant("longer", "three times as many steps", recipe={"steps": 300}),
    Variant("front", "all is dropped at the first cut (1/4 of the ViT)", settings={"schedule": "front"}),
    Variant("middle", "guided by the middle half of the LLM's layers", recipe={"guidance-layers": "middle"}),
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
        recipe = [f"--{key}={value}" for key, value in (RECIPE | variant.recipe).items()]
        settings = [f"--set={key}={value}" for key, value in variant.settings.items()]
        harness("train-adapter", "--method", variant.train, "--model", str(folder), *recipe, *settings)
    return folder


def answer(variant: Variant, work: Path, budgets: str, store: Path) -> None:
    """A variant at every budget; what the store holds is not done again."""
    grid = work / f"{variant.name}.toml"
    settings = {} if variant.run != "quietprune" else variant.settings  # a preset has its own
    lines = [f'{key} = "{value}"' for key, value in settings.items()]
    grid.write_text("\n".join(["[settings.quietprune]", *lines, ""]) if lines else "")
    harness("sweep", str(grid), "--models", str(work / variant.folder), "--methods", variant.run, "--budgets", budgets,
            "--no-controls", "--no-timing", "--store", str(store))  # fmt: skip


def harness(*words: str) -> None:
    """A command of ours in this environment. Raises CalledProcessError when it fails."""
    subprocess.run([sys.executable, "-c", "from harness.cli import main; main()", *words], check=True)


def table(frames: Frames, work: Path, budgets: list[str]) -> str:
    """Markdown: each variant's accuracy at each budget, and what it loses or gains against its counterpart."""
    runs = frames.runs.set_index("run_id")
    samples = frames.samples.merge(runs[["model", "method", "preset", "budget"]], left_on="run_id", right_index=True)
    lines = [
        "| variant | " + " | ".join(f"accuracy at {one} | points" for one in budgets) + " | the paper, points of RA |",
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
    joined = own.join(other["score"].rename("score_other"), how="inner")
    found: Interval = paired_difference(joined["score"], joined["score_other"], joined["cluster"])
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--budgets", default="50%,25%,11%")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    asked = parser.parse_args()
    store = asked.work / "ablations.duckdb"
    for variant in VARIANTS:
        prepare(asked.work, variant)
        answer(variant, asked.work, asked.budgets, store)
    text = page(load(store), asked.work, asked.budgets.split(","))
    asked.write.write_text(text) if asked.write else print(text)


def page(frames: Frames, work: Path, budgets: list[str]) -> str:
    made = __doc__.split("\n\n")
    recipe = ", ".join(f"{key} {value}" for key, value in RECIPE.items())
    about = f"{MODEL}, quick split. Recipe unless said otherwise: {recipe}."
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
