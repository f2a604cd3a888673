"""Every method on every model family at half of the visual tokens, on tiny checkpoints that are loaded from disk.

    python benchmarks/families_table.py --write docs/families.md

Each family is saved in the hub's format (random weights, its real processor, a tokenizer and a template; Qwen3-VL is
the embedded reference model), opened by its folder as a user's model is, and asked about two pictures. `ok`: planned
and run, and the tokens that entered the LLM's layers are on average half of all, or fewer where no smaller picture has
that number (downsample); `full` keeps all. `unsupported`: planning or the run refused; the reason stands below the
table. Last row: the largest difference of any logit from the native model's where all tokens are kept. The second
picture does not fill LLaVA-NeXT's tiles.

Batches: `harness.prune` takes prompts of other pictures and other lengths, padded on the left, on every family. Each is
pruned and prefilled as if it were alone, all are decoded together (harness/models/batch_decoding.py), and answers are
those of one prompt after the other (tests/models/test_gold_batch.py: logits within 1e-9 in float64, equal tokens). The
prefill of a batch so takes as long as its prompts one by one: batches save time in decoding only, and no rate of a
batch is reported. Not in a batch: flash attention, `use_cache=False`, attentions and hidden states as outputs, prompts
without an image. With beams, Transformers 5.18 answers unlike 5.23 where a prompt has several pictures; not looked
into.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

import methods
from harness.budget.planning import FALL_SHORT
from harness.models.loading import OpenModel, open_model
from harness.models.quiet import quiet_transformers
from harness.reference.paths import MODEL_A
from methods.base import Budget, PruningError

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import checkpoints

MAKERS = {name: getattr(checkpoints, name) for name in ("qwen2_5_vl", "internvl", "llava", "llava_next")}
QUESTION = "which colour has the car?"
SIZES = ((192, 192), (288, 96))  # width x height in pixels; LLaVA-NeXT pads the second
UNTRAINED = {"quietprune": "quietprune:init"}  # there is no trained adapter for random weights


def picture(width: int, height: int) -> Image.Image:
    noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(width))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def served(opened: OpenModel, method: str) -> str:
    """ "ok", or why the method does not run on this model. Raises ValueError where it misses its budget."""
    inputs = opened.prepare([picture(*size) for size in SIZES], QUESTION)
    pruner, half = methods.build(method), inputs.shape.n // 2
    try:
        engine = opened.engine(pruner)
        trace = engine.prefill(inputs, engine.plan(Budget("layer_average", half), inputs.shape)).trace
    except PruningError as error:
        return str(error)
    if not pruner.hooks:
        return "ok"
    entering = trace.realised.entering
    over = sum(entering) / len(entering) - half
    if over > 0.5 or (over < -0.5 and method not in FALL_SHORT):
        raise ValueError(f"{method} on {opened.family.model_type}: asked for {half} tokens, {entering} entered")
    return "ok"


@torch.no_grad()
def native_difference(opened: OpenModel) -> float:
    """The largest |logit - native logit| of a prompt whose tokens are all kept."""
    processed = opened.processed([picture(*size) for size in SIZES], QUESTION)
    engine, inputs = opened.engine(None), opened.family.inputs(processed)
    ours = engine.prefill(inputs, engine.plan(Budget("layer_average", 1), inputs.shape), logits_to_keep=0)
    return float((ours.logits - opened.model(**processed).logits).abs().max())


def table(results: dict[str, dict[str, str]], differences: dict[str, float]) -> str:
    """Markdown: one row a method, one column a family, reasons as numbered notes."""
    families, notes = list(results), []
    lines = [f"| method | {' | '.join(families)} |", "|---" * (len(families) + 1) + "|"]
    for method in results[families[0]]:
        cells = [_cell(results[family][method], notes) for family in families]
        lines.append(f"| {UNTRAINED.get(method, method)} | {' | '.join(cells)} |")
    kept = [f"{differences[family]:.1e}" if differences[family] else "0.0" for family in families]
    lines += [f"| all tokens kept: difference from native | {' | '.join(kept)} |", ""]
    return "\n".join(lines + [f"{number}. {note}" for number, note in enumerate(notes, 1)])


def _cell(result: str, notes: list[str]) -> str:
    if result == "ok":
        return result
    if result not in notes:
        notes.append(result)
    return f"unsupported ({notes.index(result) + 1})"


def page(names: Sequence[str]) -> str:
    results, differences = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"qwen3_vl": MODEL_A, **{family: make(Path(scratch) / family) for family, make in MAKERS.items()}}
        for family, folder in folders.items():
            opened = open_model(folder)
            results[family] = {name: served(opened, UNTRAINED.get(name, name)) for name in names}
            differences[family] = native_difference(opened)
    about, made, legend = __doc__.split("\n\n", 2)
    return "\n\n".join(["# Methods and model families", about, f"Made by\n\n{made}", legend.strip(),
                        table(results, differences)]) + "\n"  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    asked = parser.parse_args()
    quiet_transformers()
    text = page(methods.names())
    if asked.write:
        asked.write.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
