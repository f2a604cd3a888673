"""`harness train-adapter`: train the trainable part of a method on one model, by self-distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options
from harness.cli.printing import tell


def train_adapter(
    method: options.Method = "quietprune:init",
    settings: options.Setting = None,
    model: options.Model = "reference-a",
    data: Annotated[str, typer.Option(help="reference-train, or a JSONL file of image, question, answer.")] = (
        "reference-train"
    ),
    out: Annotated[
        Path | None, typer.Option(help="The safetensors file. Default: METHOD.safetensors in the model's folder.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 313,
    batch: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 32,
    keep_ratio: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of tokens kept in training.")] = 0.42,
    learning_rate: Annotated[float, typer.Option(min=1e-8, help="Peak learning rate.")] = 1e-4,
    guidance_weight: Annotated[
        float, typer.Option(min=0.0, help="Weight of our guidance term; 0 is the published loss.")
    ] = 0.0,
    guidance_layers: Annotated[
        str, typer.Option(metavar="all|middle", help="Layers of the LLM whose attention that term wants.")
    ] = "all",
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    attention: options.Attention = "sdpa",
) -> None:
    """Train an adapter and put it beside the model's weights, where `harness run` finds it.

    A stopped training continues where it was when the same command is given again.
    """
    from harness.adapter_training.adapter import Recipe, train
    from harness.adapter_training.examples import open_examples
    from harness.cli.method_errors import method_errors
    from harness.models.loading import open_model
    from harness.models.quiet import quiet_transformers
    from harness.models.registry import resolve
    from harness.records.errors import UsageError
    from harness.request.settings import parse_settings
    from methods import build, get

    if guidance_layers not in ("all", "middle"):
        raise UsageError(f"--guidance-layers is all or middle, got {guidance_layers!r}")
    quiet_transformers()
    with method_errors():
        name = method.partition(":")[0]
        pruner = build(method, **parse_settings(name, get(name), settings or ()))
        opened = open_model(model, device=device, attention=attention)
        folder = Path(resolve(model))
        if out is None and not folder.is_dir():
            raise UsageError(f"{model} has no folder of its own; say where the adapter goes with --out FILE")
        for note in pruner.notes(opened.family.info):
            tell(note)
        beside = folder / f"{pruner.name}.safetensors"
        recipe = Recipe(
            steps, batch, keep_ratio, learning_rate, guidance_weight=guidance_weight, seed=seed,
            guidance_layers=guidance_layers,
        )  # fmt: skip
        written = train(
            opened,
            pruner,
            open_examples(data),
            recipe,
            out or beside,
            lambda step: tell(
                f"step {step.step}/{steps}  cross-entropy {step.cross_entropy:.4f}  KL {step.kl:.4f}  "
                f"guidance {step.guidance:.4f}  gradient {step.gradient_norm:.3f}"
            ),
        )
    there = "" if written == beside else f", once it lies in the model's folder as {beside.name},"
    tell(f"wrote {written}; `harness run --method {pruner.name} --model {model}`{there} uses it")
