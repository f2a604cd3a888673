"""The latency table of one GPU in under ten minutes: `python benchmarks/gpu_table.py [more words for harness bench]`.

Models x methods x {50 %, 25 %} x image sizes, eager and sdpa, random weights: nothing is downloaded. Every cell gets a
session, then sessions are added while there is time; the same command again adds more, five make a publishable row.
Rows go to results/bench-gpu.json. Needs torch, transformers, typer, rich, safetensors and pillow.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a bare machine has the checkout, not the package

from harness.cli import main

if __name__ == "__main__":
    sys.argv = ["harness", "bench", "--preset", "gpu", *sys.argv[1:]]
    main()
