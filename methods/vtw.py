"""VTW: from one layer of the LLM on, no visual token is left.

Paper: Lin et al., "Boosting Multimodal Large Language Models with Visual Tokens Withdrawal for Rapid Inference",
AAAI 2025, arXiv:2405.05803. The authors' code (lzhxmu/VTW @ a3d8cfc) has no licence file at its root; nothing here is
taken from it. Written from a description of what it does, and compared with its outputs in tests/golden.

At the input of decoder layer K all visual tokens leave; text keeps its positions, and the layers before K keep the
visual keys in their cache, for decoding too. No token is scored, which makes it a control as well: whatever a method
keeps in the later layers has to be worth more than nothing.

Ours: exact budgets. The release can only choose K, so that budgets are multiples of n / L. Where L x budget is none,
what is left over stays, evenly spread over the visual tokens, for one layer more.

Floor: n / L, one layer that sees all tokens.

Departures
* K is given for the authors' 32 layers and mapped to the depth of the model at hand. Their search for it, by the
  divergence of the logits from the unpruned model's, is left out: K is a setting.
* All visual tokens leave (theirs, of several images: a span that is as long as the last one and begins where the first
  does; the rest stays).
* What DeepStack adds behind layer K is added to nothing.
* Their options to close the gaps in the positions and to withdraw random tokens are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from methods.base import (
    IN_LLM,
    Budget,
    BudgetInfeasible,
    Least,
    Plan,
    Pruner,
    PruningError,
    Selection,
    Shape,
    Site,
    View,
    map_depths,
)


@dataclass(frozen=True)
class VTW(Pruner):
    """k: layers that see the visual tokens in native runs, of `depth`."""

    name = "vtw"
    title = "VTW"
    paper = "arXiv:2405.05803"
    licence = "none stated (not used here: independent implementation)"
    hooks = (IN_LLM,)
    cost = "nothing"
    presets: ClassVar = {"k16": {"k": 16}, "13b": {"k": 20, "depth": 40}}

    k: Annotated[int, Least(1)] = 15
    depth: int = 32

    def check_settings(self) -> None:
        if self.k >= self.depth:
            raise PruningError(f"k must be in 1..{self.depth - 1} (of depth {self.depth}), got {self.k}")

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        layers, n = shape.llm_layers, shape.n
        if budget.kind == "interface_kept":
            raise BudgetInfeasible(
                f"vtw prunes inside the LLM, so all {n} tokens enter layer 0; use --budget layer_average:...", n
            )
        if budget.kind == "native":
            whole, rest = map_depths((self.k,), self.depth, layers)[0], 0
        else:
            whole, rest = divmod(layers * budget.tokens, n)  # layers that see all tokens, tokens that one more sees
        if not whole:
            raise BudgetInfeasible(
                f"vtw needs >= {n / layers:g} of {n} tokens on average here, got {budget.tokens}; raise --budget",
                n / layers,
            )
        keeps = {Site(IN_LLM, whole): rest} if rest else {}
        last = whole + 1 if rest else whole
        if last < layers:
            keeps[Site(IN_LLM, last)] = 0
        return Plan(keeps, ((n,) * whole + (rest,) * bool(rest) + (0,) * (layers - last)))

    def in_llm(self, view: View) -> Selection:
        places = torch.arange(view.keep, device=view.hidden.device)
        return Selection((2 * places + 1) * view.n // (2 * max(view.keep, 1)))  # the middles of equal runs
