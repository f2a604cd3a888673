"""`harness flops`: what methods cost on a model at its real size, without running it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from harness.cli import options
from harness.cli.options import budgets_of, methods_of, scenes_of, split
from harness.cli.printing import print_json, print_rows, tell
from harness.records.errors import UsageError

_STAGES = ("vit", "projector", "select", "llm", "total", "paper_2ndm", "paper_3ndm")


def flops(
    model: options.Models = None,
    methods: options.Methods = "all",
    budgets: Annotated[str, typer.Option(metavar="A,B", help="Budgets, as for run: 50%,25%.")] = "50%",
    image_size: options.ImageSize = "448",
    text_tokens: options.TextTokens = 40,
    json: options.Json = False,
) -> None:
    """Exact FLOPs of ViT, projector, selection and LLM, from shapes alone; the papers' formulas beside them."""
    if not model:
        raise UsageError(
            "say which model: --model qwen3-vl-2b; `harness list models` names those that need no download"
        )
    asked, scenes = budgets_of(budgets), scenes_of(image_size, text_tokens)
    from harness.cli.method_errors import method_errors
    from harness.flops.table import flops_rows, unloaded
    from harness.models.quiet import quiet_transformers

    quiet_transformers()
    with method_errors():
        rows = [row for name in split(model) for row in flops_rows(unloaded(name), methods_of(methods), asked, scenes)]
    if json:
        print_json(rows)
        return
    print_rows([_cells(row) for row in rows], list(_cells(rows[0])))
    for row in rows:
        if row["message"]:
            tell(f"{row['method']} at {row['budget']} is {row['status']}: {row['message']}")


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """A row in TFLOPs, as people read it."""
    tera = {stage: row[f"{stage}_flops"] for stage in _STAGES}
    return {
        "model": row["model"],
        "image": "x".join(map(str, row["image_px"])),
        "method": row["method"],
        "budget": row["budget"],
        "status": row["status"],
        "tokens": f"{row['visual_tokens']}" if row["layer_average_tokens"] is None else
                  f"{row['layer_average_tokens']:.0f}/{row['visual_tokens']}",
        **{f"{stage} T": None if flops is None else f"{flops / 1e12:.4g}" for stage, flops in tera.items()},
        "ratio": row["flops_ratio"],
        "2ndm ratio": row["paper_2ndm_ratio"],
    }  # fmt: skip
