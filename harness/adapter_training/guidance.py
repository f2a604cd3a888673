"""A further teacher for query guidance, ours: where the unpruned LLM looks when it answers.

The published losses reach the choice of units only through the aggregate's weights and the joint attention, which is
slow. This term says it outright: at each cut, the attention of the extra ViT token over the units still alive should
be the LLM's own attention from the token that predicts the answer (mean over heads and layers), renormalised. First and
last layers look past what is asked for (docs/attention-by-layer.md); the middle half of them is a sharper teacher.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from harness.models.attention import TAP, Capture
from harness.models.engine import Engine
from harness.models.families.family import Inputs
from harness.models.trace import Trace
from harness.records.errors import UsageError
from methods.base import IN_VIT, Plan, Shape


def refuse_tiles(shape: Shape) -> None:
    """Raises UsageError for images that the ViT sees in tiles: newlines have no unit, and every tile its own query."""
    if shape.tiles:
        raise UsageError(
            "the guidance term compares one extra ViT token an image with the LLM; this model cuts images into tiles "
            "that have one each. Train with --guidance-weight 0, the published loss"
        )


def middle(layers: int) -> slice:
    """The middle half of so many layers."""
    return slice(layers // 4, layers - layers // 4)


@contextmanager
def watching_answers(engine: Engine, inputs: Inputs, answer_tokens: int, layers: str = "all") -> Iterator[list[Tensor]]:
    """After the block, its list holds the LLM's attention over the units of each image, (n_i,) summing to 1.

    layers: whose mean it is, "all" | "middle".
    """
    relevance: list[Tensor] = []
    modules = [layer.self_attn for layer in engine.family.decoder.layers]
    if layers == "middle":
        modules = modules[middle(len(modules))]
    with TAP.watching(modules, engine.family.kernels) as seen:
        yield relevance
        row = inputs.prompt.length - answer_tokens - 1  # the token that predicts the first answer token
        rows = [seen[id(module)][-1].logits(slice(row, row + 1), True).softmax(-1).mean((0, 1)) for module in modules]
        attention = torch.stack(rows).mean(0)[inputs.prompt.visual_index]  # (n,)
        relevance += [part / part.sum() for part in attention.split(inputs.shape.images)]


@contextmanager
def watching_cuts(engine: Engine, plan: Plan) -> Iterator[dict[int, list[Capture]]]:
    """Captures of the ViT blocks before each cut, by layer; one entry an image after the block."""
    layers = plan.layers_of(IN_VIT)
    modules = {layer: engine.family.vision_attention(layer) for layer in layers}
    with TAP.watching(modules.values(), engine.family.kernels) as seen:
        captures: dict[int, list[Capture]] = {}
        yield captures
        captures.update({layer: seen[id(module)] for layer, module in modules.items()})


def guidance_loss(captures: dict[int, list[Capture]], plan: Plan, trace: Trace, relevance: list[Tensor]) -> Tensor:
    """Mean over cuts and images of KL(LLM attention || extra token's attention) over the units alive at the cut.

    Not for images cut into tiles, each of which has an extra token of its own (`refuse_tiles`).
    """
    losses = []
    alive = [torch.arange(part.shape[0], device=part.device) for part in relevance]
    for site in sorted(site for site in plan.keeps if site.hook == IN_VIT):
        for index, (units, wanted) in enumerate(zip(alive, relevance, strict=True)):
            own = extra_attention(captures[site.layer], index, units.shape[0], trace.shape)
            target = wanted[units] / wanted[units].sum()
            losses.append((target * (target.clamp_min(1e-9).log() - own.log())).sum())
        image, unit = trace.kept[site.label]
        alive = [unit[image == index] for index in range(len(relevance))]
    return torch.stack(losses).mean()


def extra_attention(captures: list[Capture], image: int, units: int, shape: Shape) -> Tensor:
    """The extra token's attention over the units of an image that are alive, (units,) summing to 1, mean over heads."""
    attention = _of_image(captures, image).logits(slice(0, 1), False).softmax(-1).mean((0, 1))  # extra token first
    patches, front = shape.unit_patches, 2 if shape.vit_cls else 1
    own = attention[front : front + patches * units].view(-1, patches).sum(1)
    return own / own.sum()


def _of_image(captures: list[Capture], index: int) -> Capture:
    """One image's capture, from one an image or from one of all images in a batch."""
    whole = captures[-1]
    return whole.of_row(index, whole.key.shape[2]) if whole.query.shape[0] > 1 else captures[index]
