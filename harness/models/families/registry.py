"""Families by the `model_type` in a checkpoint's config; a family's module is imported when it is asked for.

Imports no torch, so that a command can refuse a family's name at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from harness.records.errors import UsageError

if TYPE_CHECKING:
    from harness.models.families.family import Family

_CLASSES = {
    "internvl": "InternVL",
    "llava": "Llava",
    "llava_next": "LlavaNext",
    "qwen2_5_vl": "Qwen25VL",
    "qwen3_vl": "Qwen3VL",
}
FAMILIES = tuple(_CLASSES)  # each is also the name of its module


def module_of(model_type: str) -> str:
    """The dotted module of a family; its name is the model type."""
    return f"harness.models.families.{model_type}"


def family_class(model_type: str, asked: str = "") -> type[Family]:
    """The class of a family. asked: the model in the user's words, for the error. Raises UsageError if unknown."""
    if model_type not in _CLASSES:
        what = f"{asked} is a {model_type}" if asked else f"cannot prune a {model_type}"
        raise UsageError(f"{what}; families so far: {', '.join(FAMILIES)}")
    return getattr(import_module(module_of(model_type)), _CLASSES[model_type])
