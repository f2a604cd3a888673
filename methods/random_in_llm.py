"""Random tokens inside the LLM: the control of methods that act there.

Ours; no paper. The draw of `random`, made at FastV's layer (behind 2 of 32 layers, mapped to the depth of the model at
hand): the layers in front of it see all tokens, so the layer average has FastV's floor. This control minus `random` is
the price of the hook point, whoever chooses there.

* One pool over all images of a sample; survivors stay in raster order at their original positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import IN_LLM, Selection, Shape, Site, View
from methods.fastv import FastV
from methods.random import Random

ONE_LAYER = FastV()


@dataclass(frozen=True)
class RandomInLlm(Random):
    """k of n tokens from FastV's layer on, every subset equally likely."""

    name = "random_in_llm"
    title = "Random in the LLM"
    hooks = (IN_LLM,)

    def site(self, shape: Shape) -> Site:
        return ONE_LAYER.site(shape)

    def in_llm(self, view: View) -> Selection:
        return self.at_interface(view)
