"""Where the embedded reference models and their suite lie."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL_A: Path = HERE / "model-a"
MODELS = {folder.name.removeprefix("model-"): folder for folder in sorted(HERE.glob("model-?"))}
SUITE: Path = HERE / "suite"
