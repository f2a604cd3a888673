"""Short names of published models: their hub id, licence, size, and what is needed to build them without weights.

configs/NAME.json holds the hub's config.json (the keys that shape the model) and the numbers of its image processor,
typed in from the model cards; a test counts the parameters that each config makes. No torch is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records.errors import UnknownModel, nearest

FOLDER = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class CatalogueEntry:
    """One published model. parameters: what its config makes; config, images: as the hub's two JSON files say."""

    name: str
    hub_id: str
    licence: str
    parameters: int
    config: Mapping[str, Any]
    images: Mapping[str, Any]

    @property
    def family(self) -> str:
        return self.config["model_type"]


def names() -> list[str]:
    """The short names, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def find(name: str) -> CatalogueEntry | None:
    """The model of a short name, None for any other word."""
    if name not in names():
        return None
    return CatalogueEntry(name=name, **json.loads((FOLDER / f"{name}.json").read_text()))


def named(name: str) -> CatalogueEntry:
    """The model of a short name. Raises UnknownModel with the nearest names."""
    entry = find(name)
    if entry is None:
        raise UnknownModel(f"no published model {name!r} is known here; nearest: {nearest(name, names())}")
    return entry
