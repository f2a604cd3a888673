"""How much of a prefill is the ViT? `python benchmarks/vit_share.py [--write docs/vit-share.md]`, about a minute.

Exact FLOPs of unpruned prefills at real sizes from shapes alone, as `harness flops` counts them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.benchmarks.synthetic import SyntheticScene
from harness.flops.table import flops_rows, unloaded
from harness.models.quiet import quiet_transformers

MODELS = ("internvl3-1b", "internvl3-2b", "internvl3-8b", "qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b")
SIDES_PX = (448, 896, 1344)
ABOUT = """# The ViT's share of a prefill

Made by `python benchmarks/vit_share.py --write docs/vit-share.md`; do not edit.

FLOPs of the ViT (patch embedding and blocks) over those of the whole prefill: ViT, projector, decoder layers and the
head for one token. No pruning, one square picture, a question of 40 words in the family's chat template. Exact, from
the shapes of the published configs (`harness flops`); attention is counted as whole squares. A pruner behind the ViT
cannot save more than the rest.

QuietPrune's paper, as a reading note has it, says above 50 % in most settings and above 75 % for small models at high
resolution; whether of time or FLOPs the note does not say. These are shares of FLOPs: time also depends on kernels and
memory, and has not been measured on a GPU here.
"""
TABLE = """
| model | picture | visual tokens | ViT TFLOPs | projector | LLM | ViT's share |
|---|---|---|---|---|---|---|
"""


def rows() -> Iterator[dict[str, Any]]:
    scenes = [SyntheticScene(side, side) for side in SIDES_PX]
    for name in MODELS:
        yield from flops_rows(unloaded(name), ["full"], [], scenes)


def line(row: dict[str, Any]) -> str:
    vit, projector, llm = (row[f"{stage}_flops"] / 1e12 for stage in ("vit", "projector", "llm"))
    return (
        f"| {row['model']} | {row['image_px'][0]} px | {row['visual_tokens']} | {vit:.3f} | {projector:.3f} | "
        f"{llm:.3f} | {row['vit_share']:.1%} |\n"
    )


def document() -> str:
    found = list(rows())
    above = {bound: sum(row["vit_share"] > bound for row in found) for bound in (0.5, 0.75)}
    told = f"By FLOPs it is above 50 % in {above[0.5]} of {len(found)} settings and above 75 % in {above[0.75]}.\n"
    return ABOUT + told + TABLE + "".join(map(line, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    quiet_transformers()
    if asked.write:
        asked.write.write_text(document())
    else:
        print(document(), end="")


if __name__ == "__main__":
    main()
