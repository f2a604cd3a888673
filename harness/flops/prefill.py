"""FLOPs of one prefill, from pixel values to the first token, at the token counts that really ran.

A multiply-accumulate counts 2. Counted: convolutions and linear layers without their bias, and the two products of
attention, whole squares even where a causal mask hides half: what torch's FlopCounterMode counts, and a test holds
the two equal. Not counted: norms, activations, rotary tables, the interpolation of position embeddings.

`Flops.paper_2ndm` is the LLM formula that FastV's and DivPrune's papers print, kept for comparing with them: 4nd^2 +
2n^2d + 2ndm a layer, as printed (multiply-accumulates, an MLP of two matrices, keys as wide as queries, no lm_head).
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.flops.dims import ModelDims, dims_of
from harness.flops.planned import planned_realised, unpruned_realised
from harness.records.records import PromptText, Realised
from methods.base import IN_VIT, ModelInfo, Plan, Pruner, Shape

__all__ = [
    "Flops",
    "ModelDims",
    "dims_of",
    "planned_realised",
    "prefill_flops",
    "unpruned_realised",
]


@dataclass(frozen=True)
class Flops:
    """FLOPs by stage. vit: patch embedding and blocks; projector: DeepStack's too; select: signals, aggregates and
    the method's own maths; llm: decoder layers and the head for one token. paper_2ndm: the papers' number for the
    decoder layers."""

    vit: int
    projector: int
    select: int
    llm: int
    paper_2ndm: int

    @property
    def total(self) -> int:
        return self.vit + self.projector + self.select + self.llm


def prefill_flops(dims: ModelDims, realised: Realised, extra_vit_tokens: int = 0) -> Flops:
    """FLOPs of the prefill that `realised` describes.

    extra_vit_tokens: how many of each image's tokens in the first block a method put there; they were not embedded
    from pixels. Raises ValueError when the first block's tokens are then no whole units.
    """
    tokens = [visual + realised.text_tokens for visual in realised.entering]
    return Flops(
        vit=_patch_embedding(dims, realised, extra_vit_tokens) + _blocks(dims, realised),
        projector=_projector(dims, realised.merged_units),
        select=realised.selection_flops,
        llm=sum(_decoder_layer(dims, n) for n in tokens) + 2 * dims.llm_width * dims.vocabulary,
        paper_2ndm=sum(_paper_layer(dims, n) for n in tokens),
    )


def _patch_embedding(dims: ModelDims, realised: Realised, extra_vit_tokens: int) -> int:
    others = dims.vit_prefix_tokens + extra_vit_tokens
    patches = [tokens - others for tokens in realised.vit_tokens[0]]
    if any(count < 0 or count % dims.unit_patches for count in patches):
        raise ValueError(
            f"{realised.vit_tokens[0]} tokens entered the first ViT block, which is no whole number of units of "
            f"{dims.unit_patches} patches beside {others} other tokens an image; pass the method's extra_vit_tokens"
        )
    return 2 * sum(patches) * dims.patch_values * dims.vit_width


def _blocks(dims: ModelDims, realised: Realised) -> int:
    """All ViT blocks; an image attends to itself alone, or each of its windows does."""
    mlp = dims.vit_mlp_matrices * dims.vit_width * dims.vit_mlp_width
    macs = 0
    for tokens in realised.vit_tokens:
        macs += sum(tokens) * 4 * dims.vit_width**2
    for together in realised.vit_attended or realised.vit_tokens:
        macs += 2 * sum(p * p for p in together) * dims.vit_width
    for tokens in realised.vit_mlp_tokens or realised.vit_tokens:
        macs += sum(tokens) * mlp
    return 2 * macs


def _projector(dims: ModelDims, units: int) -> int:
    return 2 * units * dims.projectors * sum(wide * out for wide, out in dims.projector_linears)


def _decoder_layer(dims: ModelDims, n: int) -> int:
    d = dims.llm_width
    projections = 2 * d * dims.llm_query_width + 2 * d * dims.llm_key_width
    mlp = dims.llm_mlp_matrices * d * dims.llm_mlp_width
    return 2 * (n * (projections + mlp) + 2 * n * n * dims.llm_query_width)


def _paper_layer(dims: ModelDims, n: int) -> int:
    d, m = dims.llm_width, dims.llm_mlp_width
    return 4 * n * d * d + 2 * n * n * d + 2 * n * d * m


@dataclass(frozen=True)
class Cost:
    """The cost of one method on one model. pruner: None for unpruned."""

    dims: ModelDims
    pruner: Pruner | None
    model: ModelInfo

    def by_stage(self, realised: Realised, plan: Plan) -> dict[str, int]:
        """What one forward pass cost, as `Record.flops`."""
        flops = prefill_flops(self.dims, realised, self._extra_vit_tokens(plan))
        return {
            "vit": flops.vit,
            "projector": flops.projector,
            "select": flops.select,
            "llm": flops.llm,
            "total": flops.total,
            "paper_2ndm": flops.paper_2ndm,
        }

    def planned_ratio(self, plan: Plan, shape: Shape, text: PromptText) -> float:
        """What a plan will cost over what no pruning costs; > 0, and 1 for an empty plan."""
        full = unpruned_realised(self.dims, shape, text.total)
        planned = full
        if self.pruner is not None:
            planned = planned_realised(self.dims, shape, plan, text, self.pruner, self.model)
        return (
            prefill_flops(self.dims, planned, self._extra_vit_tokens(plan)).total / prefill_flops(self.dims, full).total
        )

    def _extra_vit_tokens(self, plan: Plan) -> int:
        """The engine asks a method for extra tokens only where its plan has an in-vit site."""
        return self.pruner.extra_vit_token_count() if self.pruner is not None and plan.layers_of(IN_VIT) else 0
