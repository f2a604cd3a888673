"""Views built from plain tensors: what a hook method would receive from a model."""

from __future__ import annotations

from harness.validate.golden.case import view_of
from methods.base import Shape

__all__ = ["shape_of", "view_of"]


def shape_of(*grids: tuple[int, int], vit_layers: int = 8, llm_layers: int = 16) -> Shape:
    return Shape(grids, vit_layers, llm_layers)
