"""Tiny random models and scripted pruners, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from harness.validate.tiny import END, EOS, IMAGE, START, TEXT, processed, qwen3_vl
from methods.base import HOOKS, IN_LLM, Plan, Pruner, Selection, Site, View

__all__ = ["END", "EOS", "IMAGE", "START", "TEXT", "Scripted", "in_llm", "keep_units", "processed", "qwen3_vl"]


@dataclass(frozen=True)
class Scripted(Pruner):
    """A pruner that does at each site what a test says. script: site -> function of the view."""

    script: Mapping[Site, object] = field(default_factory=dict)
    signals: tuple = ()
    policy: str = "original"
    name: ClassVar[str] = "scripted"
    hooks: ClassVar[tuple[str, ...]] = HOOKS

    @property
    def positions(self) -> str:  # type: ignore[override]
        return self.policy

    def needs(self, shape):
        return self.signals

    def _do(self, view: View) -> Selection:
        return self.script[view.site](view)  # type: ignore[operator]

    before_tokenization = in_vit = at_interface = in_llm = _do

    def plan(self, budget, shape) -> Plan:
        return self.whole_plan()

    def whole_plan(self) -> Plan:
        """A plan with every scripted site, counts left to the script."""
        return Plan(dict.fromkeys(self.script))


def keep_units(*units: int, image: int = 0):
    """Keep the rows whose unit ids are given (of one image; rows of other images all stay)."""

    def decide(view: View) -> Selection:
        wanted = torch.tensor(units)
        mine = view.image == image
        return Selection(torch.nonzero(~mine | torch.isin(view.unit, wanted)).flatten())

    return decide


def in_llm(layer: int) -> Site:
    return Site(IN_LLM, layer)
