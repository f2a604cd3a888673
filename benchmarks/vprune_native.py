"""V-PRUNE in native mode on the photographs of scikit-image and scikit-learn: `python benchmarks/vprune_native.py`.

What its thresholds prune, and how long the choice takes, beside what the paper prints. Each picture is scaled and
cropped to 336 x 336, as LLaVA-1.5 does: 576 units of 14 x 14 pixels. Pruned share in %, the mean over pictures with its
range. `repeated`: of the units given up, the share that a kept unit of the same group repeats (by the row's own rule);
V-PRUNE's is 100 by construction, `random` gives up as many units of the same picture and shows what chance repeats.
Times are medians over pictures of the median of seven calls, one thread; only their ratios mean something.

Needs scikit-image and scikit-learn (the extra `reference`). --write FILE puts the table into a Markdown page.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from harness.latency.machine import machine
from methods.base import PRE_TOKENIZATION, Shape, Site, View
from methods.random import Random
from methods.vprune import VPrune, groups

SIDE, UNIT = 336, 14
GRID = SIDE // UNIT
PICTURES = {
    "photographs": (
        "skimage/data/astronaut.png",
        "skimage/data/chelsea.png",
        "skimage/data/coffee.png",
        "skimage/data/motorcycle_left.png",
        "skimage/data/rocket.jpg",
        "skimage/data/camera.png",
        "sklearn/datasets/images/china.jpg",
        "sklearn/datasets/images/flower.jpg",
    ),
    "graphics": (
        "skimage/data/page.png",
        "skimage/data/text.png",
        "skimage/data/logo.png",
        "skimage/data/clock_motion.png",
        "skimage/data/horse.png",
    ),
}
# Printed by the paper at chi-square 5 / 10 / 20: CRPE (COCO photographs) and AI2D (diagrams); shares pruned by our
# reading of its "FLOPs ratio". It prints no shares for cosine thresholds, group sizes or AND / OR.
PAPER = {5.0: (22.70, 29.86), 10.0: (24.88, 30.74), 20.0: (27.80, 32.48)}


@dataclass(frozen=True)
class Row:
    """One configuration: pruned shares of every picture in percent, by kind of picture."""

    name: str
    shares: dict[str, list[float]]
    repeated_percent: float
    random_repeated_percent: float
    select_ms: float
    random_ms: float
    paper: tuple[float, float] | None = None


def configurations() -> Iterator[tuple[str, VPrune, tuple[float, float] | None]]:
    """The paper's axes, one changed at a time from chi-square 5, cosine .9, AND, groups of 2 x 2."""
    for t_chi, printed in PAPER.items():
        yield f"chi-square <= {t_chi:g}", VPrune(t_chi=t_chi), printed
    for tau in (0.8, 0.95):
        yield f"cosine >= {tau:g}", VPrune(tau_cos=tau), None
    for side in (3, 4):
        yield f"groups {side} x {side}", VPrune(group=side), None
    for rule in ("or", "chi_only", "cos_only"):
        yield f"combined: {rule}", VPrune(combine=rule), None


def pictures() -> dict[str, list[Tensor]]:
    """Units (576, 3, 14, 14) in [0, 1] of each picture, by kind."""
    return {kind: [_units(path) for path in paths] for kind, paths in PICTURES.items()}


def _units(path: str) -> Tensor:
    package, _, inside = path.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image and scikit-learn are needed: pip install -c constraints.txt -e '.[reference]'")
    picture = Image.open(Path(spec.origin).parent / inside).convert("RGB")
    square = np.asarray(ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(square.copy()).float().div(255).permute(2, 0, 1)  # (3, 336, 336)
    return pixels.unflatten(2, (GRID, UNIT)).unflatten(1, (GRID, UNIT)).permute(1, 3, 0, 2, 4).flatten(0, 1)


def measure(name: str, pruner: VPrune, kinds: dict[str, list[Tensor]], printed: tuple[float, float] | None) -> Row:
    shares: dict[str, list[float]] = {kind: [] for kind in kinds}
    repeats, random_repeats, times, random_times = [], [], [], []
    for kind, listed in kinds.items():
        for seed, units in enumerate(listed):
            view = _view(units, None)
            keep = pruner.before_tokenization(view).keep
            other = _view(units, len(keep), seed)
            chance = Random().at_interface(other).keep
            shares[kind].append(100 * (1 - len(keep) / len(units)))
            repeats += _repeated(pruner, units, keep)
            random_repeats += _repeated(pruner, units, chance)
            times.append(_ms(lambda view=view: pruner.before_tokenization(view)))
            random_times.append(_ms(lambda view=other: Random().at_interface(view)))
    return Row(
        name, shares, 100 * statistics.mean(repeats), 100 * statistics.mean(random_repeats),
        statistics.median(times), statistics.median(random_times), printed,
    )  # fmt: skip


def _view(units: Tensor, keep: int | None, seed: int = 0) -> View:
    zero, one = torch.zeros(len(units), dtype=torch.int64), torch.ones(len(units))
    shape = Shape(((GRID, GRID),), 24, 32, unit_patches=1)
    return View(Site(PRE_TOKENIZATION), units, keep, zero, torch.arange(len(units)), zero, one, shape, seed)


def _repeated(pruner: VPrune, units: Tensor, keep: Tensor) -> list[bool]:
    """For each unit given up: is a kept unit of its group redundant to it?"""
    members = groups(torch.arange(len(units)).view(GRID, GRID), pruner.group)  # (b, m)
    kept = torch.zeros(len(units), dtype=torch.bool)
    kept[keep] = True
    alive = kept[members.clamp_min(0)] & (members >= 0)  # (b, m)
    redundant = pruner.difference(pruner.colours(units).of(members)) <= 1  # (b, m, m)
    covered = (redundant & alive[:, :, None]).any(dim=1)  # (b, m)
    return covered[~alive & (members >= 0)].tolist()


def _ms(call, repeats: int = 7) -> float:
    elapsed = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        elapsed.append(1e3 * (time.perf_counter() - start))
    return statistics.median(elapsed)


def table(rows: list[Row]) -> str:
    lines = [
        "| setting | pruned %, 8 photographs | pruned %, 5 graphics | paper: CRPE / AI2D | repeated % | by random % "
        "| select ms | random ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = [f"{statistics.mean(s):.1f} ({min(s):.1f} to {max(s):.1f})" for s in row.shares.values()]
        printed = " / ".join(f"{share:.1f}" for share in row.paper) if row.paper else "–"
        lines.append(
            f"| {row.name} | {shares[0]} | {shares[1]} | {printed} | {row.repeated_percent:.1f} "
            f"| {row.random_repeated_percent:.1f} | {row.select_ms:.2f} | {row.random_ms:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kinds = pictures()
    rows = [measure(name, pruner, kinds, printed) for name, pruner, printed in configurations()]
    print(table(rows))
    if asked.write:
        asked.write.write_text(page(asked.write, table(rows)))


def page(path: Path, rows: str) -> str:
    made = f"Made by `python benchmarks/vprune_native.py --write {path}` on {time.strftime('%Y-%m-%d')}, "
    made += machine().hardware["cpu"] + "."
    reading = (
        "The first row is the default (chi-square <= 5, cosine >= .9, AND, groups of 2 x 2); the others change one\n"
        "thing. The paper prints shares for the chi-square thresholds alone."
    )
    return "\n\n".join(["# V-PRUNE at its own thresholds", made, __doc__.split("\n\n")[1], rows, reading]) + "\n"


if __name__ == "__main__":
    main()
