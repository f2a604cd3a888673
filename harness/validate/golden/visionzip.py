"""VisionZip's files: attention and keys in, tokens out; and whether a native ViT block gives these as signals."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from harness.models.attention import TAP, Capture
from harness.models.signals import vit_signal
from harness.models.vision_state import Segment, VisionState
from harness.validate.golden.case import GoldenCase, agree, close, same, view_of
from methods.base import IN_VIT, INTERFACE, Budget, Shape, Site, View
from methods.selection import Selection, reduce
from methods.visionzip import VisionZip


def in_front(case: GoldenCase) -> None:
    """LLaVA's: patches of several tiles in the ViT, in front of the projector, and CLS behind it."""
    pruner = VisionZip(case.integer("dominant_user"), case.integer("contextual"))
    hidden, keys = case.tensor("hidden_states"), case.tensor("key_metric")[:, 1:]
    tiles, n = hidden.shape[0], hidden.shape[1] - 1
    shape = Shape(((1, n),) * tiles, 23, 32, unit_patches=1, vit_cls=True)
    both = pruner.dominant + pruner.contextual
    if both > n:  # with CLS among them, all that there is
        keeps = {Site(IN_VIT, 22): tiles * (both - 1), Site(INTERFACE): tiles * both}
    else:
        keeps = pruner.plan(Budget("native", 0), shape).keeps
    agree("the authors' counts are what we plan", list(keeps.values()) == [tiles * (both - 1), tiles * both])
    attention, metric = pruner.needs(shape)
    agree("block 22 is asked for the row of CLS", (attention.layer, attention.queries, metric.layer) == (22, "cls", 22))
    row = case.tensor("cls_attention").mean(1)  # the harness averages heads, theirs sums them
    signals = {attention: row.reshape(-1, 1), metric: keys.reshape(tiles * n, 1, 1, -1)}
    site, last = keeps
    patches = view_of(site, hidden[:, 1:].reshape(tiles * n, 1, -1), keeps[site], shape, signals)
    zipped = _validated(pruner.in_vit(patches), patches)
    rows = torch.cat([hidden[:, :1], reduce(zipped, patches.hidden).view(tiles, both - 1, -1)], dim=1)
    behind = view_of(last, rows.flatten(0, 1), keeps[last], replace(shape, grids=((1, both),) * tiles))
    selection = _validated(pruner.at_interface(replace(behind, shape=shape)), behind)
    case.close("out_tokens", reduce(selection, behind.hidden).view(tiles, both, -1), 1e-5)
    dominant = zipped.keep.view(tiles, -1)[:, : pruner.dominant - 1] - n * torch.arange(tiles)[:, None]
    dominant = torch.cat([torch.zeros(tiles, 1, dtype=torch.int64), dominant + 1], dim=1)  # CLS is place 0
    same("out_all_indices, ascending", dominant, case.tensor("out_all_indices").sort().values.numpy())


def layer(case: GoldenCase) -> None:
    """A native CLIP layer of the file's parameters: its output, and the signals that it gives."""
    native, x = native_layer(case), case.tensor("x")
    tiles, n = x.shape[0], x.shape[1] - 1
    with torch.no_grad(), TAP.watching([native.self_attn], ["sdpa"]) as captures:
        case.close("out_hidden", native(x, attention_mask=None), 1e-4)
    state = state_of(x.flatten(0, 1), n, tiles, patches=1, prefix=1)
    shape = Shape(((1, n),) * tiles, 1, 32, unit_patches=1, vit_cls=True)
    seen = captures[id(native.self_attn)]
    attention, keys = (vit_signal(need, state, seen) for need in VisionZip().needs(shape))
    theirs = case["out_attn"][:, :, 0, 1:].mean(axis=1).reshape(-1, 1)
    close("out_attn, row of CLS, mean over heads", attention, theirs, 1e-6)
    theirs = case["out_key_metric"][:, 1:].reshape(tiles * n, -1)
    close("out_key_metric, patches", keys.mean(dim=(1, 2)), theirs, 1e-5)
    (capture,) = seen
    pairs = zip(capture.query[:, None], capture.key[:, None], strict=True)
    logits = [Capture(query, key, capture.scaling).logits(slice(None), causal=False) for query, key in pairs]
    case.close("out_attn", torch.stack(logits).softmax(-1), 1e-6)
    case.close("out_key_metric", capture.key.mean(dim=1), 1e-5)


def qwen(case: GoldenCase) -> None:
    """Qwen2.5-VL's: units behind the projector, which keep their places in the prompt."""
    pruner = VisionZip(dominant_ratio=case.number("dominant_ratio"), contextual_ratio=case.number("contextual_ratio"))
    shape = Shape(((case.integer("grid_h"), case.integer("grid_w")),), 32, 28)
    units = case.tensor("window_index").argsort()  # in raster order
    query, key = (case.tensor(name).unflatten(1, (shape.n, 4))[:, units].flatten(1, 2)[None] for name in ("q", "k"))
    state = state_of(torch.zeros(4 * shape.n, 1), shape.n, 1, patches=4)
    capture = Capture(query, key, key.shape[-1] ** -0.5)
    signals = {need: vit_signal(need, state, [capture]) for need in pruner.needs(shape)}
    attention, keys = signals.values()
    case.close("out_attn_logits", attention.mean(1) * 4 * shape.n, 1e-5)  # theirs sums over the queries
    case.close("out_attn_key", keys.mean(dim=(1, 2))[None], 1e-5)
    keep = pruner.plan(Budget("native", 0), shape).keeps[Site(INTERFACE)]
    case.equals("dominant_num", int(pruner.dominant_ratio * shape.n))
    agree("our count is theirs", keep == case.integer("dominant_num") + case.integer("contextual_num"))
    ids, embeds = case.tensor("input_ids")[0], case.tensor("inputs_embeds")[0]
    is_image = ids == case.integer("image_token_id")
    view = view_of(Site(INTERFACE), embeds[is_image], keep, shape, signals)
    selection = _validated(pruner.at_interface(view), view)
    agree("positions are left to the ids of M-RoPE", selection.positions is None)
    text, image = (torch.nonzero(mask).flatten() for mask in (~is_image, is_image))
    places, order = torch.cat([text, image[selection.keep]]).sort()
    case.equals("out_keep_mask", torch.zeros_like(is_image).index_fill(0, places, True))
    case.close("out_inputs_embeds", torch.cat([embeds[text], reduce(selection, view.hidden)])[order][None], 1e-5)
    case.equals("out_position_ids", case.tensor("position_ids")[:, :, places])
    case.equals("out_attention_mask", case.tensor("attention_mask")[:, places])


def native_layer(case: GoldenCase) -> CLIPEncoderLayer:
    """transformers' own layer with the file's parameters."""
    width, mlp = case["mlp__fc2__weight"].shape
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=mlp,
        num_attention_heads=case.integer("num_heads"),
        hidden_act=case.text("hidden_act"),
        layer_norm_eps=case.number("layer_norm_eps"),
        attn_implementation="sdpa",
    )
    native = CLIPEncoderLayer(config).eval()
    native.load_state_dict({name.replace("__", "."): case.tensor(name) for name in case.names if "__" in name})
    return native


def state_of(hidden: Tensor, n: int, images: int, patches: int, prefix: int = 0) -> VisionState:
    """The state of a ViT without rotation: images of n units, `prefix` tokens of the tower in front of each."""
    segments = (Segment(0, n, False, prefix),) * images
    unit, image = torch.arange(n).repeat(images), torch.arange(images).repeat_interleave(n)
    return VisionState(hidden, None, None, segments, unit, image, torch.ones(n * images), patches)


def _validated(selection: Selection, view: View) -> Selection:
    selection.validate(view.n, view.keep)
    return selection
