"""Whether a method left Python, torch, methods and harness as it found them: what judges it could be replaced too."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

OURS = ("methods", "harness")
OTHERS = ("builtins", "io", "json", "os", "sys", "time", "torch", "torch.nn", "torch.nn.functional")
RANDOM_STATE = "torch's random state"
CLASSES = ("torch.Tensor", "torch.nn.Module")


@dataclass(frozen=True)
class Surroundings:
    """What stood where at one moment. places: "torch.topk" -> the object; settings: "torch's thread count" -> 1."""

    places: Mapping[str, Any]
    settings: Mapping[str, Any]

    def difference(self, later: Surroundings, but: str = "") -> str:
        """The first thing that is another later, but for one; "" where nothing is. What is new is no difference."""
        for name, value in self.settings.items():
            if name != but and later.settings[name] != value:
                return name
        for name, value in self.places.items():
            if later.places.get(name) is not value:
                return name
        return ""


def surroundings() -> Surroundings:
    """What stands where now."""
    return Surroundings(
        dict(_places()),
        {
            RANDOM_STATE: torch.get_rng_state().numpy().tobytes(),
            "torch's default dtype": torch.get_default_dtype(),
            "torch's gradient mode": torch.is_grad_enabled(),
            "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
            "torch's thread count": torch.get_num_threads(),
            "the recursion limit": sys.getrecursionlimit(),
            "the names in torch.Tensor": set(vars(torch.Tensor)),  # one more hides that of a base
        },
    )


def _places() -> Iterator[tuple[str, Any]]:
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or not (name.partition(".")[0] in OURS or name in OTHERS):
            continue
        yield f"module {name}", module
        for key, value in list(vars(module).items()):
            if not callable(value):
                continue
            yield f"{name}.{key}", value
            if isinstance(value, type) and (value.__module__ == name or f"{name}.{key}" in CLASSES):
                yield from ((f"{name}.{key}.{part}", held) for part, held in vars(value).items() if callable(held))
