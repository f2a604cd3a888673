"""CDPruner: keep a set of tokens that are relevant to the question and differ from each other.

Paper: Zhang et al., "Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs",
NeurIPS 2025, arXiv:2506.10967. The authors' code (Theia-4869/CDPruner @ 9541616) is Apache-2.0; nothing here is taken
from it. Written from a description of what it does, and compared with its outputs in tests/golden.

Each image alone: the kernel of a determinantal point process is cosine of two projected tokens x relevance of one x
relevance of the other; k tokens are chosen greedily, each the one with the most variance that those chosen before do
not explain. Relevance is scaled to 0..1 over all images of the prompt. Survivors stay in raster order.

* relevance="question": cosine of a projected token and the mean embedding of the question's tokens. The paper's for
  models without CLIP, whose code is not published; that more similar means more relevant is our reading.
* relevance="clip": minus the cosine of CLIP's embeddings of patch and question, mean over the question's segments, as
  in the authors' code (patches and texts of CLIP are inversely related; the paper says plain cosine).

Departures
* The authors' LLaVA looks through the very CLIP that relevance is measured with. Here it is a model beside the pruned
  one: it sees the picture resized to its square, and its patches' embeddings are interpolated where they are no tokens.
  Its work counts, in FLOPs as in time.
* A token is never chosen for variance that rounding left over: below a millionth of its own, it explains nothing.
  (Theirs divides by the root of it, and goes on with NaN once k exceeds the rank of the features.)
* Equal relevance everywhere counts as 1 everywhere (theirs: a division by zero).
* Maths is float32; ties go to the lower index (theirs: none).
* There is no budget of its own: the authors give k on the command line. Images share it in proportion to their size
  (theirs: all crops have the same size and the same k).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from methods.base import (
    INTERFACE,
    Budget,
    BudgetInfeasible,
    MissingSignal,
    ModelInfo,
    Plan,
    Pruner,
    Selection,
    Shape,
    Signal,
    Site,
    View,
)
from methods.captured import Captured, Loop
from methods.ops import cosines, cosines_flops, share, unit

QUESTION = Signal("question")
PATCHES, SEGMENTS = Signal("patches", tower="clip"), Signal("text", tower="clip")  # (n, e), (segments, e)


@dataclass(frozen=True)
class CDPruner(Pruner):
    """relevance: what weighs a token; clip_folder: local folder of a CLIP model and its tokenizer, for "clip"."""

    name = "cdpruner"
    title = "CDPruner"
    paper = "arXiv:2506.10967"
    licence = "Apache-2.0 (not used here: independent implementation)"
    hooks = (INTERFACE,)
    cost = "O(n^2 d + n k^2), the second part in k steps"
    positions = "renumber"

    relevance: Literal["question", "clip"] = "question"
    clip_folder: str = ""

    @property
    def clip(self) -> str:
        return self.clip_folder if self.relevance == "clip" else ""

    def prepare(self, model: ModelInfo) -> None:
        if self.relevance == "clip" and not self.clip_folder:
            raise MissingSignal('relevance "clip" needs a CLIP model; set clip_folder to a local folder that holds one')

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            raise BudgetInfeasible("cdpruner has no budget of its own; ask for one, such as --budget 50%", 1)
        return super().plan(budget, shape)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        return (QUESTION,) if self.relevance == "question" else (PATCHES, SEGMENTS)

    def at_interface(self, view: View) -> Selection:
        images, kept, start = view.shape.images, [], 0
        parts = zip(view.hidden.split(images), self._relevance(view).split(images), strict=True)
        for (tokens, relevance), k in zip(parts, share(view.keep, images), strict=True):
            kept.append(start + diverse_subset(tokens, relevance, k, self._loop).sort().values)
            start += len(tokens)
        return Selection(torch.cat(kept))

    @cached_property
    def _loop(self) -> Loop:
        return Captured(greedy)

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        flops = 2 * n * d if self.relevance == "question" else 0
        for tokens, kept in zip(shape.images, share(k, shape.images), strict=True):
            if kept:
                flops += cosines_flops(tokens, d) + tokens * kept * (kept - 1)
        return flops

    def _relevance(self, view: View) -> Tensor:
        """(n,) float32, from 0 (a millionth of the range above it) to 1, over all images."""
        if self.relevance == "question":
            question = view.signal(QUESTION).float().mean(dim=0, keepdim=True)  # (1, d)
            similarity = unit(view.hidden) @ unit(question).T  # (n, 1)
        else:
            similarity = -(unit(view.signal(PATCHES)) @ unit(view.signal(SEGMENTS)).T)  # (n, segments)
        score = similarity.mean(dim=1)
        low, high = score.aminmax()
        span = (high - low).clamp_min(1e-6)
        return torch.where(high > low, (score - low + 1e-6) / span, 1)


def diverse_subset(tokens: Tensor, relevance: Tensor, k: int, loop: Loop | None = None) -> Tensor:
    """(k,) indices in the order of choice: greedy maximum a posteriori of the process with kernel q_i cos(i, j) q_j.

    tokens: (n, d), any float dtype, compared by cosine in float32; relevance q: (n,) float32, >= 0; k <= n. Each index
    is chosen once. Ties go to the lower one.
    """
    if k == 0:
        return torch.zeros(0, dtype=torch.int64, device=tokens.device)
    return (loop or greedy)((relevance[:, None] * cosines(tokens) * relevance).detach(), k)


def greedy(kernel: Tensor, k: int) -> Tensor:
    """`diverse_subset` of tokens with this kernel, (n, n).

    Source: fast greedy inference by an incremental Cholesky factor, as in the authors' code.
    """
    chosen = torch.zeros(k, dtype=torch.int64, device=kernel.device)
    left = kernel.diagonal().clone()  # (n,) variance that the chosen ones do not explain
    noise = 1e-6 * left
    factor = kernel.new_zeros(k, len(kernel))
    for step in range(k):  # each choice needs the one before it; nothing is read back to the host
        best = torch.argmax(left, dim=0, keepdim=True, out=chosen[step : step + 1])
        variance = left.where(left > noise, torch.inf).index_select(0, best)  # (1,)
        before = factor[:step]
        explained = before.index_select(1, best).T @ before  # (1, n)
        row = (kernel.index_select(0, best) - explained)[0] / variance.sqrt()  # (n,)
        factor[step] = row
        left -= row.square()
        left.index_fill_(0, best, -torch.inf)
    return chosen
