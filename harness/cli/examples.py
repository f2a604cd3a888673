"""What each verb's help shows as examples. They are run in this order by a test, in one folder."""

from __future__ import annotations

from collections.abc import Mapping

import typer

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "new": ("harness new my_method", "harness new my_late_method --hook in-llm --out drafts"),
    "validate": ("harness validate ./my_method.py", "harness validate fastv --family llava"),
    "run": (
        "harness run --method vprune",
        "harness run --method ./my_method.py --set ratio=0.3 --budget native --no-timing",
        "harness run --method fastv:k3 --budget 25% --limit 20 --no-timing --profile traces",
    ),
    "sweep": (
        "harness sweep --methods vprune,./my_method.py --budgets 50%,25% --dry-run",
        "harness sweep --methods vprune --budgets 25% --no-timing",
    ),
    "bench": ("harness bench --model reference-a --methods divprune,./my_method.py --image-size 256 --minutes 0.5",),
    "flops": ("harness flops --model qwen3-vl-2b --methods fastv,./my_method.py --image-size 448,896x448",),
    "list": ("harness list methods", "harness list runs --json"),
    "show": ("harness show ./my_method.py", "harness show vprune"),
    "compare": ("harness compare random:50% vprune:50%",),
    "report": ("harness report --out report.html --csv",),
    "board": ("harness board --export site",),
    "submit": ("harness submit vprune:50%",),
    "verify": ("harness verify results/submissions/BATCH --samples 2 --seed 7",),
    "import": ("harness import lmms-eval logs",),
    "doctor": ("harness doctor --no-timing",),
    "train-adapter": ("harness train-adapter --data questions.jsonl --out quietprune.safetensors",),
    "db rebuild": ("harness db rebuild",),
    "profile show": ("harness profile show traces --top 5",),
}


def show_examples(app: typer.Typer, group: str = "") -> None:
    """Put its examples under the help of every verb of `app` and of the groups in it."""
    for command in app.registered_commands:
        lines = EXAMPLES.get(f"{group} {command.name}".strip(), ())
        if lines:
            command.epilog = "\n\n".join(["Examples:", *lines])
    for inner in app.registered_groups:
        if inner.typer_instance is not None:
            show_examples(inner.typer_instance, f"{group} {inner.name}".strip())
