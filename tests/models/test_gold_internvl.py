"""Gold tests of InternVL: pruning equals the native model on all tokens with the pruned ones masked out as keys.

A unit is 2 x 2 patches, an image of the harness is a tile. Logits of float64 runs, whose LLM norms round to float32.
"""

from dataclasses import replace

import gold
import pytest
import torch
from gold import Gold, cases
from gold_cases import ClsTowerCases
from tiny import Scripted

import harness.models.families.internvl as family_module
from harness.models.families.internvl import InternVL
from harness.validate.tiny import internvl, internvl_processed
from methods.base import IN_VIT, Selection, Site

ONE, TWO, THREE = ((6, 6),), ((6, 6),) * 2, ((6, 6),) * 3
CASES = cases(36)


def vit_keys(family, inputs, gone):
    """CLS is always there; tiles are one batch; the native tower holds patches in raster order."""
    rows, columns = inputs.shape.grids[0]
    patches = gone.view(-1, rows, columns).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    return torch.nn.functional.pad(patches, (1, 0))


INTERNVL = Gold(InternVL, internvl, internvl_processed, vit_keys)


class TestInternVL(ClsTowerCases):
    gold, one, several, twice, cases = INTERNVL, ONE, THREE, (THREE, ONE), CASES


@pytest.fixture(scope="module")
def model():
    return internvl(torch.float64)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("grids", [ONE, THREE])
def test_keeping_everything_is_the_native_model_to_rounding(grids, attention):
    assert gold.native_error(INTERNVL, grids, attention) < 5e-5
    assert gold.native_error(INTERNVL, grids, attention, torch.float64) < 1e-12


OTHERS = {
    "query and key norms": {"use_qk_norm": True},
    "rms norms, biases": {"norm_type": "rms_norm", "attention_bias": True},
    "a norm behind the tower": {"use_mean_pooling": False},
}


@pytest.mark.parametrize("vision", OTHERS.values(), ids=OTHERS)
def test_other_towers_of_the_family(vision):
    build = lambda dtype, attention="sdpa": internvl(dtype, attention, **vision)  # noqa: E731
    other = replace(INTERNVL, build=build)
    assert gold.native_error(other, TWO, dtype=torch.float64) < 1e-5  # the norms round to float32
    assert gold.gold_error(other, build(torch.float64), TWO, CASES["all together"]) < 1e-5


def test_tiles_of_unequal_length_equal_the_masked_native_model(model):
    """Three tiles that keep 20, 9 and 20 units, cut again to 6, 9 and 7: two lengths, then three."""
    counts = {Site(IN_VIT, 1): (20, 9, 20), Site(IN_VIT, 4, "attention"): (6, 9, 7)}

    def first(view):
        mine = torch.tensor(counts[view.site])[view.image]
        return Selection(torch.nonzero(view.unit * 7 % 36 < mine).flatten())

    batch, pruner = INTERNVL.batch(model, THREE), Scripted(dict.fromkeys(counts, first))
    engine = INTERNVL.engine(model, pruner)
    inputs = engine.family.inputs(batch)
    ours = engine.prefill(inputs, pruner.whole_plan(), logits_to_keep=0)
    assert ours.realised.vit_tokens[2] == (81, 37, 81) and ours.realised.vit_tokens[-1] == (25, 37, 29)
    left = torch.tensor((36,) * 3)
    dead, unit = {}, torch.arange(36).repeat(3) * 7 % 36
    for number in range(engine.family.vit_layers):
        gone = unit >= left.repeat_interleave(36)
        dead[engine.family.vision_attention(number)] = vit_keys(engine.family, inputs, gone)
        for site, kept in counts.items():
            left = torch.tensor(kept) if site.layer == number else left
    gone = unit >= left.repeat_interleave(36)
    absent = torch.zeros(inputs.prompt.length, dtype=torch.bool).index_put((inputs.prompt.visual_index,), gone)
    dead |= {layer.self_attn: absent for layer in engine.family.decoder.layers}
    with gold.masked(model, dead), torch.no_grad():
        native = model(**batch).logits[:, ~absent]
    assert (ours.logits - native).abs().max() < 1e-9


def test_a_cut_behind_the_attention_spares_the_mlp_of_its_block(model):
    ran = []
    block = model.model.vision_tower.encoder.layer[2]
    hooks = [
        part.register_forward_hook(lambda module, args, out: ran.append(args[0].numel() // 32))
        for part in (block.layernorm_before, block.mlp)
    ]
    pruner = gold.scripted(CASES["vit, behind an attention"])
    engine = INTERNVL.engine(model, pruner)
    engine.prefill(engine.family.inputs(INTERNVL.batch(model, ONE)), pruner.whole_plan())
    for hook in hooks:
        hook.remove()
    assert ran == [1 + 4 * 36, 1 + 4 * 22]


# Mutations: each breaks one thing; the gold test must notice.


def test_mutation_positions_of_kept_units_not_gathered(model, monkeypatch):
    original = InternVL._positions
    monkeypatch.setattr(InternVL, "_positions", lambda self, grids: original(self, grids).roll(1, 0))
    assert gold.gold_error(INTERNVL, model, ONE, CASES["pixels"]) > 0.1


def test_mutation_patches_of_a_unit_in_another_order(model, monkeypatch):
    original = InternVL._shuffled
    monkeypatch.setattr(InternVL, "_shuffled", lambda self, *grid: original(self, *grid)[:, [0, 2, 1, 3]])
    assert gold.native_error(INTERNVL, ONE) > 0.1
    assert gold.gold_error(INTERNVL, model, ONE, CASES["pixels"]) > 0.1


def test_mutation_units_counted_down_the_columns(model, monkeypatch):
    original = InternVL._shuffled

    def broken(self, rows, columns):
        return original(self, rows, columns).view(rows, columns, -1).transpose(0, 1).flatten(0, 1)

    monkeypatch.setattr(InternVL, "_shuffled", broken)
    assert gold.gold_error(INTERNVL, model, ONE, CASES["vit"]) > 0.1


@pytest.mark.parametrize("scale", ["lambda_1", "lambda_2"])
def test_mutation_layer_scale_forgotten(scale):
    one = internvl(torch.float64)
    batch = INTERNVL.batch(one, ONE)
    with torch.no_grad():
        native = one(**batch).logits
    for block in one.model.vision_tower.encoder.layer:
        getattr(block, scale).data.fill_(1)
    engine = INTERNVL.engine(one)
    inputs = engine.family.inputs(batch)
    ours = engine.prefill(inputs, engine.plan(gold.Budget("layer_average", 36), inputs.shape), logits_to_keep=0)
    assert (ours.logits - native).abs().max() > 0.1


def test_mutation_tiles_of_unequal_length_attend_to_each_other(model, monkeypatch):
    def broken(packed, lengths):
        return original(packed, lengths if len(set(lengths)) == 1 else (sum(lengths),))

    original = family_module.batches
    monkeypatch.setattr(family_module, "batches", broken)
    monkeypatch.setattr(
        family_module, "joined", lambda batched, lengths: torch.cat([one.flatten(0, 1) for one in batched])
    )
    assert gold.gold_error(INTERNVL, model, THREE, CASES["vit"], image=1) > 0.1


def test_mutation_tiles_come_back_in_the_order_of_their_lengths(model, monkeypatch):
    monkeypatch.setattr(
        family_module, "joined", lambda batched, lengths: torch.cat([one.flatten(0, 1) for one in batched])
    )
    assert gold.gold_error(INTERNVL, model, THREE, CASES["vit"], image=1) > 0.1
