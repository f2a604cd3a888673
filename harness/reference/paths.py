"""Where the embedded reference model and its suite lie."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL_A: Path = HERE / "model-a"
SUITE: Path = HERE / "suite"
