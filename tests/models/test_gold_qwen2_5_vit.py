"""Qwen2.5-VL's ViT once more, token by token: [Q-CLS], aggregates, single patches, merges and signals among windows.

The second implementation keeps a list of tokens, each with the group it attends to, and one dense attention over all.
Native rotation and norms and our sizes are float32, hence tolerances of 1e-5.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import gold
import pytest
import torch
from test_gold_qwen2_5_vl import QWEN, windows_of
from test_gold_vit import BEHIND, BETWEEN, CUTS, LAST, MERGES, ByPatch, keep_patches, merging
from test_models_vision import EXTRA, KEPT, gather, turned
from tiny import Scripted, keep_units

from harness.models.families.qwen2_5_vl import Qwen25VL, WindowedState
from harness.validate.tiny import qwen2_5_vl
from methods.base import IN_VIT, INTERFACE, InvalidSelection, MissingSignal, Selection, Signal, Site

ONE, TWO = ((4, 6),), ((4, 6), (3, 1))


@dataclass
class Token:
    """patch: its number in its image, None for [Q-CLS] ("extra") and the aggregate; place: its window, or its name."""

    image: int
    patch: int | None
    place: object
    hidden: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    size: float = 1.0


Edit = Callable[[list[Token]], list[Token]]
STILL = (torch.ones(16, dtype=torch.float64), torch.zeros(16, dtype=torch.float64))


def first_tokens(model, inputs, extra):
    start = Qwen25VL(model).embed(inputs, None)
    tokens, row = [], 0
    for image, grid in enumerate(inputs.shape.grids):
        if extra is not None:
            tokens += [Token(image, None, "extra", hidden, *STILL) for hidden in extra]
        place = {unit: number for number, units in enumerate(windows_of(*grid)) for unit in units}
        for patch in range(4 * grid[0] * grid[1]):
            at = row + patch
            tokens.append(Token(image, patch, place[patch // 4], start.hidden[at], start.cos[at], start.sin[at]))
        row += 4 * grid[0] * grid[1]
    return tokens


@torch.no_grad()
def plain_vit(model, inputs, edits: dict[Site, Edit], extra=None, watch=None):
    """Features in the prompt's order; watch: number of a block whose attention (h, i, j) is given as well."""
    tokens, seen = first_tokens(model, inputs, extra), None
    for number, block in enumerate(model.model.visual.blocks):
        hidden = torch.stack([token.hidden for token in tokens])
        query, key, value = block.attn.qkv(block.norm1(hidden)).view(len(tokens), 3, 2, 16).unbind(1)
        cos, sin = (torch.stack([getattr(t, name) for t in tokens])[:, None].double() for name in ("cos", "sin"))
        logits = torch.einsum("ihd,jhd->hij", turned(query, cos, sin), turned(key, cos, sin)) * 16**-0.5
        logits = logits + torch.tensor([token.size for token in tokens], dtype=torch.float64).log()
        group = [token.image if number % 2 else (token.image, token.place) for token in tokens]
        apart = torch.tensor([[one != other for other in group] for one in group])
        weights = logits.masked_fill(apart, -torch.inf).softmax(-1)
        seen = weights if number == watch else seen
        mixed = torch.einsum("hij,jhd->ihd", weights, value).flatten(1)
        for token, row in zip(tokens, hidden + block.attn.proj(mixed), strict=True):
            token.hidden = row
        tokens = edits.get(Site(IN_VIT, number, "attention"), list)(tokens)
        hidden = torch.stack([token.hidden for token in tokens])
        for token, row in zip(tokens, hidden + block.mlp(block.norm2(hidden)), strict=True):
            token.hidden = row
        tokens = edits.get(Site(IN_VIT, number), list)(tokens)
    rows = [t.hidden for t in tokens for _ in range(4 if t.place == "aggregate" else t.place != "extra")]
    return model.model.visual.merger(torch.stack(rows)), seen


def inputs_of(model, grids):
    return Qwen25VL(model).inputs(QWEN.batch(model, grids))


def error(model, grids, pruner, edits, extra=None):
    ours, _ = gold.encoded(QWEN.engine(model, pruner), inputs_of(model, grids), pruner)
    plain, _ = plain_vit(model, inputs_of(model, grids), edits, extra)
    assert plain.std() > 0.5
    return (ours - plain).abs().max().item() if ours.shape == plain.shape else torch.inf


@pytest.fixture(scope="module")
def model():
    return qwen2_5_vl(torch.float64)


# [Q-CLS] and aggregates


def gathers(site) -> Edit:
    """What test_models_vision.gather asks for: units of every image go by their numbers, into a running aggregate."""

    def edit(tokens):
        left = []
        for image in sorted({token.image for token in tokens}):
            mine = [token for token in tokens if token.image == image]
            last = [token for token in mine if token.place == "aggregate"]
            gone = [t for t in mine if t.patch is not None and t.patch // 4 not in KEPT[site]]
            base = (0.1, 0.2, 0.05, 0.15)
            total = sum(base[t.patch % 4] * (1 + t.patch // 4 / 10) * t.hidden for t in gone)
            total = total + sum(0.7 * t.hidden for t in last)
            left += [t for t in mine if not any(t is other for other in (*gone, *last))]
            left += [Token(image, None, "aggregate", total, *STILL)] if gone or last else []
        return left

    return edit


AGGREGATES = {site: gathers(site) for site in KEPT}


@dataclass(frozen=True)
class WithExtra(Scripted):
    def extra_vit_tokens(self, question, patches, prepared):
        return EXTRA


def aggregate_error(model, grids=ONE):
    return error(model, grids, WithExtra({site: gather(site) for site in KEPT}), AGGREGATES, EXTRA)


@pytest.mark.parametrize("grids", [ONE, TWO])
def test_extra_tokens_and_aggregates_equal_the_plain_implementation(model, grids):
    assert aggregate_error(model, grids) < 1e-5


def test_under_eager_attention():
    assert aggregate_error(qwen2_5_vl(torch.float64, "eager")) < 1e-4  # eager's softmax runs in float32


# Single patches and merges


def kept(wanted, image=0) -> Edit:
    def edit(tokens):
        of = {token.patch: token for token in tokens if token.image == image}
        before, after = ([t for t in tokens if (t.image - image) * side > 0] for side in (-1, 1))
        return [*before, *(of[patch] for patch in wanted), *after]

    return edit


@pytest.mark.parametrize("grids", [ONE, TWO])
def test_single_patches_are_cut_and_packed_in_the_order_in_which_they_stand(model, grids):
    pruner = ByPatch({site: keep_patches(patches) for site, patches in CUTS.items()})
    assert error(model, grids, pruner, {site: kept(patches) for site, patches in CUTS.items()}) < 1e-5


def merges(site) -> Edit:
    joins, dropped = MERGES[site]

    def edit(tokens):
        of = {token.patch: token for token in tokens}
        sizes = {patch: token.size for patch, token in of.items()}
        for target in set(joins.values()):
            group = [target, *(patch for patch, to in joins.items() if to == target)]
            total = sum(sizes[patch] for patch in group)
            of[target].hidden = sum(of[patch].hidden * sizes[patch] / total for patch in group)
            of[target].size = total
        return [token for token in tokens if token.patch not in joins and token.patch not in dropped]

    return edit


def merge_error(model):
    return error(model, ONE, ByPatch({s: merging(s) for s in MERGES}), {s: merges(s) for s in MERGES})


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_merges_across_windows_stay_where_their_representative_is(attention):
    assert merge_error(qwen2_5_vl(torch.float64, attention)) < 1e-4


def test_whole_units_kept_patch_by_patch_are_the_units(model):
    whole = {BETWEEN: (0, 1, 3, 4, 7, 9, 13, 14, 20, 23), BEHIND: (1, 3, 7, 9, 20), LAST: (3, 9, 20)}
    by_unit = Scripted({site: keep_units(*units) for site, units in whole.items()})
    by_patch = ByPatch(
        {site: keep_patches([4 * unit + p for unit in units for p in range(4)]) for site, units in whole.items()}
    )
    ours = [gold.encoded(QWEN.engine(model, p), inputs_of(model, ONE), p)[0] for p in (by_unit, by_patch)]
    assert torch.equal(*ours)


def test_a_remainder_that_fills_no_unit_is_refused(model):
    pruner = ByPatch({BETWEEN: keep_patches(list(range(10)))})
    with pytest.raises(InvalidSelection, match="units of 4"):
        gold.encoded(QWEN.engine(model, pruner), inputs_of(model, ONE), pruner)


# Signals


def shown(model, grids, site, *signals, before=None):
    """The signals as a view at `site` has them."""
    seen = {}

    def look(view):
        seen.update({signal: view.signal(signal) for signal in signals})
        return Selection(torch.arange(view.n))

    pruner = Scripted({**(before or {}), site: look}, signals=signals)
    gold.encoded(QWEN.engine(model, pruner), inputs_of(model, grids), pruner)
    return [seen[signal] for signal in signals]


@pytest.mark.parametrize("block", [2, 3])
@pytest.mark.parametrize("grids", [ONE, TWO])
def test_received_rows_are_means_over_all_patches_of_the_image(model, grids, block):
    signal = Signal("rows", "vit", block, "received")
    (ours,) = shown(model, grids, Site(INTERFACE), signal)
    _, weights = plain_vit(model, inputs_of(model, grids), {}, watch=block)
    parts, start = [], 0
    for rows, columns in grids:
        patches = slice(start, start + 4 * rows * columns)
        parts.append(weights[:, patches, patches].mean((0, 1)))
        start = patches.stop
    assert ours.shape == (sum(r * c for r, c in grids), 4)
    assert (ours.flatten() - torch.cat(parts)).abs().max() < 1e-5


def test_received_rows_behind_a_cut_are_those_of_the_survivors(model):
    cut, units = Site(IN_VIT, 1), (0, 3, 4, 9, 10, 17)
    signal = Signal("rows", "vit", 4, "received", per_head=True)
    (ours,) = shown(model, ONE, Site(IN_VIT, 4), signal, before={cut: keep_units(*units)})
    wanted = [4 * unit + p for unit in units for p in range(4)]
    _, weights = plain_vit(model, inputs_of(model, ONE), {cut: kept(wanted)}, watch=4)
    assert (ours.flatten(1) - weights.mean(1)).abs().max() < 1e-5


@pytest.mark.parametrize("block", [2, 3])
@pytest.mark.parametrize("site", [Site(IN_VIT, 3, "attention"), Site(INTERFACE)])
def test_keys_and_queries_stand_in_the_prompts_order(model, site, block):
    signals = [Signal(kind, "vit", block, rope=rope) for kind in ("keys", "queries") for rope in (True, False)]
    ours = shown(model, TWO, site, *signals)
    native = {}

    def remember(module, args, kwargs, output):
        native["in"] = args[0]
        native["tables"] = [table[:, None].double() for table in kwargs["position_embeddings"]]

    attention = model.model.visual.blocks[block].attn
    hook = attention.register_forward_hook(remember, with_kwargs=True)
    with torch.no_grad():
        model(**QWEN.batch(model, TWO))
        query, key, _ = attention.qkv(native["in"]).view(-1, 3, 2, 16).unbind(1)
    hook.remove()
    order = [unit for window in windows_of(4, 6) for unit in window] + [24 + u for w in windows_of(3, 1) for u in w]
    for signal, values in zip(signals, ours, strict=True):
        states = key if signal.kind == "keys" else query
        states = turned(states, *native["tables"]) if signal.rope else states
        expected = states.view(-1, 4, 2, 16)[torch.argsort(torch.tensor(order))]
        assert (values - expected).abs().max() < 1e-5


def test_what_one_query_sees_is_known_in_full_blocks_alone(model):
    assert shown(model, ONE, Site(INTERFACE), Signal("rows", "vit", 3, "visual"))[0].shape == (96, 24, 4)
    for queries in ("visual", "extra"):
        with pytest.raises(MissingSignal, match=r"block 2 .* within windows.*full attention"):
            shown(model, ONE, Site(INTERFACE), Signal("rows", "vit", 2, queries))


# Mutations


@pytest.mark.parametrize("part", ["front", "aggregate"])
def test_mutation_what_belongs_nowhere_joins_a_window(model, monkeypatch, part):
    original = WindowedState._lengths

    def broken(self, rows):
        lengths = list(original(self, rows))
        if part == "front" and self.segments[0].front:
            lengths[:2] = [sum(lengths[:2])]
        if part == "aggregate" and self.segments[0].aggregate:
            lengths[-2:] = [sum(lengths[-2:])]
        return tuple(lengths)

    monkeypatch.setattr(WindowedState, "_lengths", broken)
    assert aggregate_error(model) > 0.01


def test_mutation_packed_in_the_order_of_windows(model, monkeypatch):
    monkeypatch.setattr(WindowedState, "in_order", lambda self: replace(self, windows=()))
    whole = ByPatch({LAST: keep_patches(list(range(96)))})
    assert error(model, ONE, whole, {}) > 0.1


def test_mutation_signals_left_in_the_order_of_windows(model, monkeypatch):
    original = Qwen25VL.vision_signal
    signal = Signal("keys", "vit", 3)
    (right,) = shown(model, ONE, Site(INTERFACE), signal)
    monkeypatch.setattr(
        Qwen25VL, "vision_signal",
        lambda self, wanted, state, captures: original(
            self, wanted, replace(state, back=torch.arange(len(state.back))), captures
        ),
    )  # fmt: skip
    (wrong,) = shown(model, ONE, Site(INTERFACE), signal)
    assert (right - wrong).abs().max() > 0.1
