"""VTW's files: whole tiny Llamas whose visual tokens leave at one layer, and the divergence that its search reads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from harness.validate.golden.case import GoldenCase, Mismatch, agree, close
from harness.validate.golden.llm import GoldenPrefill, native_model
from methods.full import Full
from methods.vtw import VTW

TOLERANCE = 1e-4


class ClosedUp(VTW):
    """Their option to number what is left anew, from the layer on at which visual tokens leave."""

    positions = "renumber"


def whole_model(case: GoldenCase) -> None:
    """Lengths, caches, positions, hidden states and logits, of the prefill and two decoding steps."""
    rule = case.integer("position_rule")
    agree("position_rule is 0 (original) or 1 (closed up)", rule in (0, 1))
    embeds = case.tensor("inputs_embeds")
    ours, head = withdrawn(case, embeds, case.integer("K"), ClosedUp if rule else VTW)
    case.equals("seq_len_entering_layer_output", [states.shape[1] for states in ours.received])
    case.equals("kv_len_per_layer_after_prefill", ours.cached)
    case.close("last_hidden_prefill", ours.hidden, TOLERANCE)
    case.close("logits_prefill", linear(ours.hidden, head), TOLERANCE)
    for number, step in enumerate(ours.decode(case.tensor("decode_embeds")), 1):
        case.close(f"last_hidden_decode_step{number}", step, TOLERANCE)
    first = ours.cos_of([case.integer("decode_position_step1")])[0].numpy()
    for table in ours.decode_tables[: case.integer("K") if rule else len(ours.cached)]:
        close("rotary table of decode_position_step1", table[0], first, 1e-5)


def divergence(case: GoldenCase) -> None:
    """Divergence of the last logits from the unpruned model's, for every layer that visual tokens could leave at."""
    samples, first = case.tensor("inputs_embeds").float(), case.integer("first_layer")
    layers = len(set(name.split("__")[3] for name in case.names if name.startswith("w__model__layers__")))
    found = []
    for sample in samples:
        ours, head = withdrawn(case, sample[None], None)
        whole = linear(ours.hidden[0, -1], head).log_softmax(-1)
        found.append([])
        for layer in range(first, layers):
            ours, head = withdrawn(case, sample[None], layer)
            here = linear(ours.hidden[0, -1], head).log_softmax(-1)
            found[-1].append((here.exp() * (here - whole)).sum())
    divergences = torch.tensor(found)
    case.close("kl_per_sample", divergences, 1e-5)
    case.close("kl_mean", divergences.mean(0), 1e-5)
    small = torch.nonzero(divergences.mean(0) <= case.number("eta_example")).flatten()
    if not len(small):
        raise Mismatch("no layer's divergence is as small as eta_example")
    case.equals("chosen_layer_for_eta_example", first + int(small[0]))


def withdrawn(
    case: GoldenCase, embeds: Tensor, layer: int | None, kind: type[VTW] = VTW
) -> tuple[GoldenPrefill, Tensor]:
    """A prefill that leaves the visual tokens at `layer` (None: nowhere), and the weights of the model's head."""
    stored = {name[3:].replace("__", "."): case.tensor(name) for name in case.names if name.startswith("w__")}
    weights = {name: value.float() for name, value in stored.items()}
    head = weights.pop("lm_head.weight", None)
    if head is None:
        raise Mismatch("its weights lack lm_head.weight")
    model = native_model(
        weights, case.integer("num_heads"), case.integer("num_kv_heads"), case.number("rope_theta"),
        case.number("rms_norm_eps"),
    )  # fmt: skip
    start = case.integer("span_start")
    span = (start, start + case.integer("span_length"))
    if layer is None:
        return GoldenPrefill(model, Full(), embeds, (span,)), head
    return GoldenPrefill(model, kind(k=layer, depth=len(model.layers)), embeds, (span,)), head
