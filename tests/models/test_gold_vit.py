"""Cuts between a ViT block's attention and its MLP, single patches, merges with a key bias, and ViT signals.

Against the native blocks on all tokens with the pruned patches masked as keys, and against a second, plain
implementation. float64. The mutations break one thing each and must be seen.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from masked import masked
from test_gold_qwen3_vl import ONE, THREE, gold_error
from tiny import Scripted, in_llm, keep_units, processed, qwen3_vl

import harness.models.families.qwen3_vl as family_module
import harness.models.vision as vision_module
from harness.models.attention import TAP
from harness.models.clock import Untimed
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.models.vision_state import VisionState
from methods.base import (
    IN_VIT,
    INTERFACE,
    InvalidSelection,
    MissingSignal,
    Plan,
    PruningError,
    Selection,
    Signal,
    Site,
)

BETWEEN, BEHIND, LAST = Site(IN_VIT, 2, "attention"), Site(IN_VIT, 3), Site(IN_VIT, 5, "attention")
TAPS = (1, 3, 5)
# Patches of the 24 units that stay at each site: 44, 28, 12, of broken units, some in another order.
CUTS = {
    BETWEEN: [p for p in range(96) if p % 13 not in (0, 2, 3, 5, 8, 11, 12)][:44],
    BEHIND: [p for p in range(96) if p % 13 in (1, 4, 6, 9)][:28],
    LAST: [45, 1, 4, 6, 9, 22, 14, 17, 71, 19, 30, 32],
}


@dataclass(frozen=True)
class ByPatch(Scripted):
    granularity = "patch"


@pytest.fixture(scope="module")
def model():
    return qwen3_vl(torch.float64)


def doubled(grids=ONE):
    batch = processed(grids)
    return {**batch, "pixel_values": batch["pixel_values"].double()}


def keep_patches(wanted, image=0):
    """Keep the named patches of one image in the order given, and everything of the others."""

    def decide(view):
        place = {
            patch: row
            for row, (patch, of) in enumerate(zip(view.unit.tolist(), view.image.tolist(), strict=True))
            if of == image
        }
        mine = torch.tensor([place[patch] for patch in wanted])
        before, after = torch.nonzero(view.image < image).flatten(), torch.nonzero(view.image > image).flatten()
        return Selection(torch.cat([before, mine, after]))

    return decide


def encoded(model, pruner, grids=ONE):
    """(features, DeepStack features, trace) of all images."""
    engine = Engine(Qwen3VL(model), pruner)
    inputs = engine.family.inputs(doubled(grids))
    with torch.no_grad(), engine.encoded(inputs, pruner.whole_plan(), 0, Untimed()) as run:
        outputs = run.arguments["mm_encoder_outputs"]["image"]
        return torch.cat(outputs.pooler_output), [torch.cat(level) for level in outputs.deepstack_features], run.trace


@torch.no_grad()
def masked_native(model, cuts, grids, image):
    """The same from the native ViT on all patches, dead ones masked as keys, survivors merged four by four."""
    visual, batch = model.model.visual, doubled(grids)
    counts = [4 * rows * columns for rows, columns in grids]
    alive, dead = list(range(counts[image])), {}
    for number, block in enumerate(visual.blocks):
        masks = [torch.zeros(count, dtype=torch.bool) for count in counts]
        masks[image][[p for p in range(counts[image]) if p not in alive]] = True
        dead[block.attn] = masks
        for site, kept in cuts.items():
            alive = kept if site.layer == number else alive
    states = {}
    hooks = [
        block.register_forward_hook(lambda module, inputs, output, number=number: states.update({number: output}))
        for number, block in enumerate(visual.blocks)
    ]
    with masked(model, dead):
        visual(batch["pixel_values"], batch["image_grid_thw"])
    for hook in hooks:
        hook.remove()
    start, end = sum(counts[:image]), sum(counts[: image + 1])
    rows = torch.cat([torch.arange(start), start + torch.tensor(alive), torch.arange(end, sum(counts))])
    mergers = [visual.merger, *visual.deepstack_merger_list]
    taken = [states[len(visual.blocks) - 1], *(states[tap] for tap in TAPS)]
    features, *deepstack = (merger(state[rows]) for merger, state in zip(mergers, taken, strict=True))
    return features, deepstack


def patch_error(model, cuts=CUTS, grids=ONE, image=0):
    script = {site: keep_patches(kept, image) for site, kept in cuts.items()}
    ours, gold = encoded(model, ByPatch(script), grids), masked_native(model, cuts, grids, image)
    assert gold[0].std() > 0.5
    pairs = zip([ours[0], *ours[1]], [gold[0], *gold[1]], strict=True)
    return max((a - b).abs().max().item() if a.shape == b.shape else torch.inf for a, b in pairs)


@pytest.mark.parametrize(("grids", "image"), [(ONE, 0), (THREE, 1)])
def test_single_patches_are_cut_and_packed_as_the_masked_native_model_says(model, grids, image):
    assert patch_error(model, CUTS, grids, image) < 1e-9


def test_single_patches_under_eager_attention():
    assert patch_error(qwen3_vl(torch.float64, "eager")) < 1e-5  # eager's softmax runs in float32


def test_patches_are_rows_in_the_vit_alone_and_the_record_says_which_survived(model):
    seen = {}

    def look(view):
        seen[view.site] = (tuple(view.hidden.shape), view.keep)
        return keep_patches(CUTS[view.site])(view) if view.site in CUTS else Selection(torch.arange(view.n))

    sites = [*CUTS, Site(INTERFACE), in_llm(2)]
    engine = Engine(Qwen3VL(model), ByPatch(dict.fromkeys(sites, look)))
    inputs = engine.family.inputs(doubled())
    realised = engine.prefill(inputs, Plan(dict(zip(sites, (11, 7, 3, 3, None), strict=True)))).realised
    assert seen == {
        BETWEEN: ((96, 1, 32), 44), BEHIND: ((44, 1, 32), 28), LAST: ((28, 1, 32), 12), sites[3]: ((3, 32), 3),
        sites[4]: ((3, 32), None),
    }  # fmt: skip
    assert realised.vit_tokens == ((96,),) * 3 + ((44,),) + ((28,),) * 2 + ((12,),) * 2
    assert realised.vit_mlp_tokens == ((96,),) * 2 + ((44,),) * 2 + ((28,),) + ((12,),) * 3
    assert realised.entering == (3,) * 6 and realised.merged_units == 3
    assert int(realised.kept["patches"], 16) == sum(1 << patch for patch in CUTS[LAST])
    assert int(realised.kept["in-vit:5:attention"], 16) == sum(1 << unit for unit in {p // 4 for p in CUTS[LAST]})
    firsts = {CUTS[LAST][0] // 4, CUTS[LAST][4] // 4, CUTS[LAST][8] // 4}
    assert int(realised.kept["interface"], 16) == sum(1 << unit for unit in firsts)


WHOLE = {BETWEEN: (0, 1, 3, 4, 7, 9, 13, 14, 20, 23), Site(IN_VIT, 3, "attention"): (1, 3, 7, 9, 20), LAST: (3, 9, 20)}


@pytest.mark.parametrize(("grids", "image"), [(ONE, 0), (THREE, 1)])
def test_units_cut_behind_an_attention_equal_the_masked_native_model(model, grids, image, monkeypatch):
    after_block = {Site(IN_VIT, site.layer): kept for site, kept in WHOLE.items()}
    import test_gold_qwen3_vl as gold

    def run(model, inputs, case, image=0, **options):  # what no key sees, a block's MLP need not run on either
        pruner = Scripted({site: keep_units(*units, image=image) for site, units in WHOLE.items()})
        return Engine(Qwen3VL(model), pruner), pruner.whole_plan()

    monkeypatch.setattr(gold, "run", run)
    assert gold_error(model, grids, after_block, image) < 1e-9


def test_whole_units_kept_patch_by_patch_are_the_units(model):
    by_unit = encoded(model, Scripted({site: keep_units(*units) for site, units in WHOLE.items()}))
    script = {site: keep_patches([4 * unit + p for unit in units for p in range(4)]) for site, units in WHOLE.items()}
    by_patch = encoded(model, ByPatch(script))
    assert torch.equal(by_unit[0], by_patch[0])
    assert all(torch.equal(a, b) for a, b in zip(by_unit[1], by_patch[1], strict=True))


def test_a_view_between_the_halves_shows_what_the_native_mlp_receives(model):
    seen, native = {}, {}

    def look(view):
        seen["hidden"] = view.hidden
        return Selection(torch.arange(view.n))

    encoded(model, Scripted({BETWEEN: look}))
    hook = model.model.visual.blocks[2].norm2.register_forward_hook(lambda m, args, out: native.update(hidden=args[0]))
    with torch.no_grad():
        model(**doubled())
    hook.remove()
    assert torch.equal(seen["hidden"].flatten(0, 1), native["hidden"])


def test_a_remainder_that_fills_no_unit_is_refused(model):
    with pytest.raises(InvalidSelection, match=r"image 1 leaves the ViT with 10 patches; .* units of 4"):
        encoded(model, ByPatch({BETWEEN: keep_patches(list(range(10)), image=1)}), THREE)


# Merges, sizes and the key bias, token by token.

MERGES = {  # patch -> the patch it joins; a few patches go
    BETWEEN: ({1: 2, 6: 2, 9: 8, 95: 0, 40: 41, 50: 51}, {3, 4}),
    BEHIND: ({2: 8, 11: 10, 0: 12, 70: 71}, {60, 61, 62, 63}),
}


def merging(site):
    """Size-weighted means, as ToMe takes them; the survivors in ascending order."""
    joins, dropped = MERGES[site]

    def decide(view):
        ids = view.unit.tolist()
        kept = [patch for patch in ids if patch not in joins and patch not in dropped]
        slot = {patch: place for place, patch in enumerate(kept)}
        assign = torch.tensor([-1 if p in dropped else slot[joins.get(p, p)] for p in ids])
        total = torch.zeros(len(kept)).index_add(0, assign[assign >= 0], view.size[assign >= 0])
        weight = view.size / total[assign.clamp_min(0)]
        return Selection(torch.tensor([ids.index(p) for p in kept]), assign, weight, key_bias=True)

    return decide


@torch.no_grad()
def plain_merged(model):
    """Features of one image whose patches merge, token by token, dense attention with log sizes on the keys."""
    visual = model.model.visual
    start = Qwen3VL(model).embed(Qwen3VL(model).inputs(doubled()), None)
    tokens = {p: [start.hidden[p], start.cos[p], start.sin[p], 1, []] for p in range(96)}

    def merge(site):
        joins, dropped = MERGES.get(site, ({}, ()))
        for target in set(joins.values()):
            group = [target, *(p for p, to in joins.items() if to == target)]
            total = sum(tokens[p][3] for p in group)
            mean = lambda values: sum(value * tokens[p][3] / total for p, value in zip(group, values, strict=True))  # noqa: E731, B023
            levels = [mean(level) for level in zip(*(tokens[p][4] for p in group), strict=True)]
            tokens[target] = [mean([tokens[p][0] for p in group]), *tokens[target][1:3], total, levels]
        for gone in [*joins, *dropped]:
            del tokens[gone]

    for number, block in enumerate(visual.blocks):
        hidden = torch.stack([token[0] for token in tokens.values()])
        query, key, value = block.attn.qkv(block.norm1(hidden)).view(len(tokens), 3, 2, 16).unbind(1)
        cos = torch.stack([token[1] for token in tokens.values()])[:, None].float()
        sin = torch.stack([token[2] for token in tokens.values()])[:, None].float()
        turn = lambda x: (x.float() * cos + torch.cat([-x[..., 8:], x[..., :8]], -1).float() * sin).double()  # noqa: E731, B023
        sizes = torch.tensor([token[3] for token in tokens.values()], dtype=torch.float64)
        logits = torch.einsum("ihd,jhd->hij", turn(query), turn(key)) * 16**-0.5
        weights = (logits + sizes.log()).softmax(-1)
        hidden = hidden + block.attn.proj(torch.einsum("hij,jhd->ihd", weights, value).flatten(1))
        for token, row in zip(tokens.values(), hidden, strict=True):
            token[0] = row
        merge(Site(IN_VIT, number, "attention"))
        hidden = torch.stack([token[0] for token in tokens.values()])
        for token, row in zip(tokens.values(), hidden + block.mlp(block.norm2(hidden)), strict=True):
            token[0] = row
            if number in TAPS:
                token[4].append(row)
        merge(Site(IN_VIT, number))
    features = visual.merger(torch.stack([token[0] for token in tokens.values()]))
    levels = [torch.stack(level) for level in zip(*(token[4] for token in tokens.values()), strict=True)]
    return features, [merge(level) for merge, level in zip(visual.deepstack_merger_list, levels, strict=True)]


def merge_error(model):
    ours = encoded(model, ByPatch({site: merging(site) for site in MERGES}))
    gold = plain_merged(model)
    pairs = zip([ours[0], *ours[1]], [gold[0], *gold[1]], strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def test_merged_patches_with_their_sizes_on_the_keys_equal_the_plain_implementation(model):
    assert merge_error(model) < 1e-5  # the native rotation and our sizes are float32


def test_merges_under_eager_attention():
    assert merge_error(qwen3_vl(torch.float64, "eager")) < 1e-5


def test_merging_equal_tokens_with_a_bias_equals_keeping_them(model):
    for kernel in ("sdpa", "eager"):
        family = Qwen3VL(model if kernel == "sdpa" else qwen3_vl(torch.float64, "eager"))
        inputs = family.inputs(doubled(THREE))
        twice = torch.cat([torch.arange(33), torch.arange(30, 33), torch.tensor([32])])  # image 2: its units 0, 1, 2

        def blocks(state, numbers, family=family):
            for number in numbers:
                state = family.run_mlp(number, family.run_attention(number, state))
            return state

        with torch.no_grad():
            both = blocks(family.embed(inputs, None).select(Selection(twice), [6, 24, 7]), range(2))
            slot = torch.cat([torch.arange(33), torch.arange(30, 33), torch.tensor([32])])
            weight = 1 / torch.bincount(slot)[slot].double()
            merged = both.select(Selection(torch.arange(33), slot, weight, key_bias=True), [6, 24, 3])
            unbiased = replace(merged, biased=False)
            kept, ours, wrong = (blocks(state, range(2, 8)).hidden[: 4 * 33] for state in (both, merged, unbiased))
        assert (ours - kept).abs().max() < 1e-5
        assert (wrong - kept).abs().max() > 1e-2


def test_a_bias_is_refused_under_flash_attention_and_leaves_nothing_behind(model):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    attention = model.model.visual.blocks[0].attn
    flash = TAP.biasing(attention, [], "flash_attention_2")
    with pytest.raises(PruningError, match="--attention sdpa or eager"), flash:
        pass
    with pytest.raises(RuntimeError, match="inside"), TAP.biasing(attention, [], "sdpa"):
        assert "sdpa" in ALL_ATTENTION_FUNCTIONS._local_mapping
        raise RuntimeError("inside")
    assert ALL_ATTENTION_FUNCTIONS._local_mapping == {} and not TAP._biases


def test_a_bias_reaches_the_attention_that_signals_read(model):
    """Rows of a later block are those of the attention that ran: 4 merged copies weigh like 4."""
    rows = Signal("rows", "vit", 3, "received")
    seen = {}

    def look(view):
        seen["rows"] = view.signal(rows)
        return Selection(torch.arange(view.n))

    for biased in (True, False):
        first = lambda view, biased=biased: replace(merging(BETWEEN)(view), key_bias=biased)  # noqa: E731
        encoded(model, ByPatch({BETWEEN: first, BEHIND: look}, signals=(rows,)))
        seen[biased] = seen["rows"]
        assert abs(seen[biased].sum() - 1) < 1e-5
    assert (seen[True] - seen[False]).abs().max() > 1e-4


# Keys and queries


def test_signals_of_single_patches_reach_the_interface_unit_by_unit(model):
    signals = (Signal("keys", "vit", 7), Signal("rows", "vit", 7, "received"))
    seen = {}

    def look(view):
        seen.update({signal.kind: view.signal(signal) for signal in signals})
        return Selection(torch.arange(view.n))

    for pruner, keep in ((ByPatch, keep_patches([4, 5, 6, 7, 28, 29, 30, 31])), (Scripted, keep_units(1, 7))):
        encoded(model, pruner({LAST: keep, Site(INTERFACE): look}, signals=signals))
        seen[pruner] = (seen["keys"], seen["rows"])
    assert seen[ByPatch][0].shape == (2, 4, 2, 16) and seen[ByPatch][1].shape == (2, 4)
    assert all(torch.equal(ours, gold) for ours, gold in zip(seen[ByPatch], seen[Scripted], strict=True))


@pytest.mark.parametrize("grids", [ONE, THREE])
@pytest.mark.parametrize("pruner", [Scripted, ByPatch])
@pytest.mark.parametrize("site", [BETWEEN, Site(IN_VIT, 2), Site(INTERFACE)])
def test_keys_and_queries_are_those_of_the_native_attention(model, grids, pruner, site):
    signals = tuple(Signal(kind, "vit", 2, rope=rope) for kind in ("keys", "queries") for rope in (True, False))
    seen, native = {}, {}

    def look(view):
        seen.update({signal: view.signal(signal) for signal in signals})
        return Selection(torch.arange(view.n))

    encoded(model, pruner({site: look}, signals=signals), grids)

    def remember(module, args, kwargs, output):
        native["in"] = args[0]
        native["cos"], native["sin"] = (table[:, None].double() for table in kwargs["position_embeddings"])

    attention = model.model.visual.blocks[2].attn
    hook = attention.register_forward_hook(remember, with_kwargs=True)
    with torch.no_grad():
        model(**doubled(grids))
        query, key, _ = attention.qkv(native["in"]).view(-1, 3, 2, 16).unbind(1)
    hook.remove()
    for signal in signals:
        raw = query if signal.kind == "queries" else key
        turned = raw * native["cos"] + torch.cat([-raw[..., 8:], raw[..., :8]], -1) * native["sin"]
        g = 1 if pruner is ByPatch and site.hook == IN_VIT else 4
        expected = (turned if signal.rope else raw).view(-1, g, 2, 16)
        assert seen[signal].shape == expected.shape
        assert (seen[signal] - expected).abs().max() < 1e-5
        assert (raw - turned).abs().max() > 0.5


def test_a_tower_without_cls_points_to_received_rows(model):
    signal = Signal("rows", "vit", 7, "cls")
    with pytest.raises(MissingSignal, match="received"):
        encoded(model, Scripted({Site(INTERFACE): lambda view: None}, signals=(signal,)))


# Mutations


def test_mutation_patches_packed_in_another_order(model, monkeypatch):
    original = VisionState.outputs
    monkeypatch.setattr(VisionState, "outputs", lambda self, units, last: original(self, units.flip(1), last))
    assert patch_error(model) > 0.1


def test_mutation_taps_not_packed_with_the_survivors(model, monkeypatch):
    original = vision_module.packed

    def broken(state):
        moved = tuple(replace(tap, rows=torch.arange(tap.rows.shape[0])) for tap in state.taps)
        return original(replace(state, taps=moved))

    monkeypatch.setattr(vision_module, "packed", broken)
    assert patch_error(model) > 0.1


def test_mutation_the_tap_is_taken_before_the_mlp(model, monkeypatch):
    original = family_module.Qwen3VL.run_attention

    def broken(self, number, state):
        state = original(self, number, state)
        return state.tapped() if number in TAPS else state

    monkeypatch.setattr(family_module.Qwen3VL, "run_attention", broken)
    monkeypatch.setattr(
        family_module.Qwen3VL, "run_mlp",
        lambda self, number, state: replace(
            state, hidden=state.hidden + self.visual.blocks[number].mlp(self.visual.blocks[number].norm2(state.hidden))
        ),
    )  # fmt: skip
    assert patch_error(model) > 0.1


def test_mutation_bias_without_the_logarithm(model, monkeypatch):
    original = VisionState.key_bias
    monkeypatch.setattr(VisionState, "key_bias", lambda self: [bias.exp() - 1 for bias in original(self)])
    assert merge_error(model) > 1e-3


def test_mutation_taps_take_the_representative_instead_of_the_mean(model, monkeypatch):
    monkeypatch.setattr(
        VisionState, "_tap_after", lambda self, tap, selection: replace(tap, rows=tap.rows[selection.keep])
    )
    assert merge_error(model) > 0.05
