"""The line that ends each verb's help. A test types all of them, in this order and in one folder."""

from __future__ import annotations

from collections.abc import Mapping

import typer

EXAMPLES: Mapping[str, str] = {
    "new": "harness new my_method",
    "validate": "harness validate ./my_method.py",
    "run": "harness run --method ./my_method.py --budget 25% --limit 20 --no-timing --profile traces",
    "sweep": "harness sweep --methods vprune,./my_method.py --budgets 50%,25% --no-timing",
    "bench": "harness bench --model reference-a --methods divprune,./my_method.py --image-size 256 --minutes 0.5",
    "flops": "harness flops --model qwen3-vl-2b --methods fastv,./my_method.py --image-size 448,896x448",
    "list": "harness list runs --json",
    "show": "harness show ./my_method.py",
    "compare": "harness compare random:50% vprune:50%",
    "export": "harness export vprune:50% --format md --out vprune.md",
    "board": "harness board --port 8501",
    "submit": "harness submit vprune:50%",
    "verify": "harness verify results/submissions/BATCH --samples 2 --seed 7",
    "import": "harness import lmms-eval logs",
    "doctor": "harness doctor --no-timing",
    "train-adapter": "harness train-adapter --data questions.jsonl --out quietprune.safetensors",
    "db rebuild": "harness db rebuild",
    "profile show": "harness profile show traces --top 5",
}


def show_examples(app: typer.Typer, group: str = "") -> None:
    """Put its example under the help of every verb of `app` and of the groups in it."""
    for command in app.registered_commands:
        if line := EXAMPLES.get(f"{group} {command.name}".strip()):
            command.epilog = f"Example: {line}"
    for inner in app.registered_groups:
        if inner.typer_instance is not None:
            show_examples(inner.typer_instance, f"{group} {inner.name}".strip())
