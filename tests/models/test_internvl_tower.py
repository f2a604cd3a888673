"""InternVL's tower on what masks cannot express, against a second, plain implementation; its signals and its pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import gold
import pytest
import torch
from gold import FACE, PIXELS
from test_gold_internvl import INTERNVL, ONE, THREE, TWO
from tiny import IMAGE, Scripted

from harness.models.families.internvl import InternVL
from harness.records.errors import UsageError
from harness.validate.tiny import internvl
from methods.base import AGGREGATE, IN_VIT, Plan, Resize, Selection, Signal, Site

BETWEEN, BEHIND = Site(IN_VIT, 2, "attention"), Site(IN_VIT, 4)
EXTRA = torch.linspace(-1, 1, 64, dtype=torch.float64).view(2, 32)


@dataclass(frozen=True)
class ByPatch(Scripted):
    granularity = "patch"


@dataclass(frozen=True)
class WithExtra(Scripted):
    def extra_vit_tokens(self, question, patches, prepared):
        assert patches.shape == (144, 32) and question.shape[1] == 32
        return EXTRA


@pytest.fixture(scope="module")
def model():
    return internvl(torch.float64)


def place_of(patch: int) -> tuple[int, int]:
    """Row and column of a patch (unit x 4 + place in the unit) of a tile of 6 x 6 units."""
    unit, place = divmod(patch, 4)
    return 2 * (unit // 6) + place // 2, 2 * (unit % 6) + place % 2


@torch.no_grad()
def plain_tile(model, pixels, events, extra=()):
    """Tokens of one tile by name after all blocks, and the attention of each: dense, one token a row.

    Names: "cls", "extra 0", ..., (row, column) of a patch, "aggregate". events: site -> function of (tokens, sizes)
    that changes both. Attention: block -> (names, weights (h, T, T)).
    """
    vision, seen = model.model.vision_tower, {}
    whole = vision.embeddings(pixels[None])[0]
    tokens = {"cls": whole[0]} | {f"extra {i}": token for i, token in enumerate(extra)}
    tokens |= {(row, column): whole[1 + 12 * row + column] for row in range(12) for column in range(12)}
    sizes = dict.fromkeys(tokens, 1.0)
    for number, block in enumerate(vision.encoder.layer):
        hidden = torch.stack(list(tokens.values()))
        attention, normal = block.attention, block.layernorm_before(hidden)
        query, key, value = (
            project(normal).view(-1, 2, 16) for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        bias = torch.tensor([sizes.get(name, 1.0) for name in tokens], dtype=torch.float64).log()
        weights = (torch.einsum("ihd,jhd->hij", query, key) / 4 + bias).softmax(-1)
        seen[number] = (list(tokens), weights)
        mixed = torch.einsum("hij,jhd->ihd", weights, value).flatten(1)
        hidden = hidden + block.lambda_1 * attention.projection_layer(mixed)
        tokens = dict(zip(tokens, hidden, strict=True))
        events.get(Site(IN_VIT, number, "attention"), lambda *_: None)(tokens, sizes)
        hidden = torch.stack(list(tokens.values()))
        hidden = hidden + block.lambda_2 * block.mlp(block.layernorm_after(hidden))
        tokens = dict(zip(tokens, hidden, strict=True))
        events.get(Site(IN_VIT, number), lambda *_: None)(tokens, sizes)
    return tokens, seen


@torch.no_grad()
def projected(model, rows):
    """Visual tokens from rows of four patches each."""
    return model.model.multi_modal_projector(torch.stack([torch.cat(four) for four in rows]))


# A question token and aggregates; tiles that keep different numbers of units

KEPT = {BETWEEN: ((0, 1, 4, 7, 13, 20, 33), (2, 3, 35)), BEHIND: ((1, 7, 20), (3, 35))}
WEIGHTS = torch.tensor([0.1, 0.2, 0.05, 0.15], dtype=torch.float64)


def gather(site):
    def decide(view):
        visual = view.kind != AGGREGATE
        keep, weights = [], torch.zeros(view.n, 4, dtype=torch.float64)
        for row in range(view.n):
            if not visual[row]:
                weights[row, 0] = 0.7
            elif view.unit[row] in torch.tensor(KEPT[site][view.image[row]]):
                keep.append(row)
            else:
                weights[row] = WEIGHTS * (1 + view.unit[row].item() / 10)
        return Selection(torch.tensor(keep), aggregate=weights)

    return decide


def plain_gather(site, tile):
    def event(tokens, sizes):
        patches = [patch for patch in range(144) if place_of(patch) in tokens and patch // 4 not in KEPT[site][tile]]
        total = sum(WEIGHTS[p % 4] * (1 + p // 4 / 10) * tokens.pop(place_of(p)) for p in patches)
        tokens["aggregate"] = total + (0.7 * tokens.pop("aggregate") if "aggregate" in tokens else 0)

    return event


def aggregates_error(model):
    batch = INTERNVL.batch(model, TWO)
    pruner = WithExtra({site: gather(site) for site in KEPT})
    engine = INTERNVL.engine(model, pruner)
    ours, trace = gold.encoded(engine, engine.family.inputs(batch), pruner)
    rows = []
    for tile, pixels in enumerate(batch["pixel_values"]):
        tokens, _ = plain_tile(model, pixels, {site: plain_gather(site, tile) for site in KEPT}, EXTRA)
        rows += [[tokens[place_of(4 * unit + p)] for p in range(4)] for unit in KEPT[BEHIND][tile]]
        rows.append([tokens["aggregate"]] * 4)
    assert trace.vit_tokens[2:6] == [(147, 147)] + [(3 + 28 + 1, 3 + 12 + 1)] * 2 + [(3 + 12 + 1, 3 + 8 + 1)]
    return (ours - projected(model, rows)).abs().max().item()


def test_a_question_token_and_running_aggregates_equal_the_plain_tower(model):
    assert aggregates_error(model) < 1e-9


def test_mutation_layer_scale_of_the_other_half(model, monkeypatch):
    def broken(self, number, state):
        block = self.blocks[number]
        return replace(state, hidden=block.lambda_1 * block.mlp(block.layernorm_after(state.hidden)) + state.hidden)

    monkeypatch.setattr(InternVL, "run_mlp", broken)
    assert aggregates_error(model) > 0.01


# Single patches: cut, merged with their sizes on the keys, packed in fours

MERGES = {  # patch -> the patch it joins; and patches that go
    BETWEEN: ({1: 2, 6: 2, 9: 8, 143: 0, 40: 41, 50: 51}, {3, 4}),
    BEHIND: ({2: 8, 11: 10, 0: 12, 70: 71}, {60, 61, 62, 63}),
}


def merging(site):
    """Size-weighted means; the survivors in ascending order."""
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


def plain_merge(site):
    joins, dropped = MERGES[site]

    def event(tokens, sizes):
        for target in set(joins.values()):
            group = [place_of(p) for p in (target, *(p for p, to in joins.items() if to == target))]
            total = sum(sizes[name] for name in group)
            tokens[group[0]] = sum(tokens[name] * sizes[name] for name in group) / total
            sizes[group[0]] = total
        for patch in (*joins, *dropped):
            del tokens[place_of(patch)]

    return event


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_merged_patches_with_their_sizes_on_the_keys_equal_the_plain_tower(attention):
    model = internvl(torch.float64, attention)
    batch = INTERNVL.batch(model, ONE)
    pruner = ByPatch({site: merging(site) for site in MERGES})
    engine = INTERNVL.engine(model, pruner)
    ours, trace = gold.encoded(engine, engine.family.inputs(batch), pruner)
    tokens, _ = plain_tile(model, batch["pixel_values"][0], {site: plain_merge(site) for site in MERGES})
    alive = [tokens[place_of(p)] for p in range(144) if place_of(p) in tokens]
    assert len(alive) == 128 and trace.vit_tokens[-1] == (129,)
    fours = [alive[start : start + 4] for start in range(0, 128, 4)]
    assert (ours - projected(model, fours)).abs().max() < 1e-5  # sizes are float32


# Signals

AT = 3
SIGNALS = {
    "cls": Signal("rows", "vit", AT, "cls"),
    "cls by head": Signal("rows", "vit", AT, "cls", per_head=True),
    "received": Signal("rows", "vit", AT, "received"),
    "extra": Signal("rows", "vit", AT, "extra"),
}
CUT = {0: (0, 1, 4, 7, 13, 20, 33), 1: (2, 3, 35)}


def signals_of(model, site):
    """Signals of two tiles behind a cut to unequal lengths, and the attention of the plain tower."""
    batch, seen = INTERNVL.batch(model, TWO), {}

    def look(view):
        seen.update({name: view.signal(signal) for name, signal in SIGNALS.items()})
        return Selection(torch.arange(view.n))

    def first(view):
        rows = [r for r in range(view.n) if view.unit[r].item() in CUT[view.image[r].item()]]
        return Selection(torch.tensor(rows))

    pruner = WithExtra({Site(IN_VIT, 1): first, site: look}, signals=tuple(SIGNALS.values()))
    engine = INTERNVL.engine(model, pruner)
    gold.encoded(engine, engine.family.inputs(batch), pruner)

    def lose(tile):
        def event(tokens, sizes):
            for patch in range(144):
                if patch // 4 not in CUT[tile]:
                    del tokens[place_of(patch)]

        return {Site(IN_VIT, 1): event}

    plain = [plain_tile(model, pixels, lose(t), EXTRA)[1][AT] for t, pixels in enumerate(batch["pixel_values"])]
    return seen, plain


@pytest.mark.parametrize("site", [Site(IN_VIT, AT, "attention"), Site(IN_VIT, AT), FACE])
def test_attention_rows_are_those_of_the_plain_tower_tile_by_tile(model, site):
    seen, plain = signals_of(model, site)
    start = 0
    for tile, (names, weights) in enumerate(plain):
        place = torch.tensor([names.index(place_of(4 * unit + p)) for unit in CUT[tile] for p in range(4)])
        rows = slice(start, start + len(CUT[tile]))
        start = rows.stop
        expected = {
            "cls by head": weights[:, names.index("cls"), place].view(2, -1, 4),
            "cls": weights[:, names.index("cls"), place].mean(0).view(-1, 4),
            "received": weights[:, place][..., place].mean((0, 1)).view(-1, 4),
            "extra": weights[:, [names.index("extra 0"), names.index("extra 1")]][..., place].mean(0).view(2, -1, 4),
        }
        for name, gold_rows in expected.items():
            assert (seen[name][..., rows, :] - gold_rows).abs().max() < 1e-6  # rows are float32
            assert gold_rows.std() > 1e-4
    assert start == seen["cls"].shape[0] == 10


@pytest.mark.parametrize("kind", ["keys", "queries"])
@pytest.mark.parametrize("rope", [True, False])
def test_keys_and_queries_are_those_of_the_native_attention(model, kind, rope):
    signal, seen, native = Signal(kind, "vit", AT, rope=rope), {}, {}

    def look(view):
        seen["states"] = view.signal(signal)
        return Selection(torch.arange(view.n))

    pruner = Scripted({FACE: look}, signals=(signal,))
    engine, batch = INTERNVL.engine(model, pruner), INTERNVL.batch(model, TWO)
    gold.encoded(engine, engine.family.inputs(batch), pruner)
    project = getattr(
        model.model.vision_tower.encoder.layer[AT].attention, {"keys": "k_proj", "queries": "q_proj"}[kind]
    )
    hook = project.register_forward_hook(lambda module, args, out: native.update(states=out))
    with torch.no_grad():
        model(**batch)
    hook.remove()
    tiles = native["states"][:, 1:].view(2, 12, 12, 2, 16)  # rows and columns of patches, heads
    units = torch.stack([tiles[:, r::2, c::2].flatten(1, 2) for r in (0, 1) for c in (0, 1)], 2)  # (2, 36, 4, h, hd)
    assert (seen["states"] - units.flatten(0, 1)).abs().max() < 1e-9


# Pixels, other sizes, and what is refused


def test_pixels_of_units_are_those_of_their_places_with_the_normalisation_undone(model):
    engine, batch = INTERNVL.engine(model), INTERNVL.batch(model, TWO)
    inputs = engine.family.inputs(batch)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.1, 0.3)
    units = engine.family.unit_pixels(inputs, mean, std)
    corner = batch["pixel_values"][1, :, 8:16, 40:48]  # second tile, row 1, column 5
    whole = corner * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    assert units.shape == (72, 3, 8, 8)
    torch.testing.assert_close(units[36 + 11], whole.clamp(0, 1), check_dtype=False)


def smaller(model, sides):
    """Our run on tiles that are resized, and the resized pixels of each."""
    batch = INTERNVL.batch(model, ((6, 6),) * len(sides))
    pruner = Scripted({PIXELS: lambda view: tuple(Resize(*side) for side in sides)})
    engine = INTERNVL.engine(model, pruner)
    inputs = engine.family.inputs(batch)
    ours = engine.prefill(inputs, Plan({PIXELS: None}), logits_to_keep=0)
    less = engine.family.resized(inputs, sides, (0.5,) * 3, (0.5,) * 3)
    units = less.pixels.split([rows * columns for rows, columns in sides])
    return (
        ours,
        [
            torch.cat([torch.cat(list(part[r * columns : (r + 1) * columns]), 2) for r in range(rows)], 1)
            for part, (rows, columns) in zip(units, sides, strict=True)
        ],
        batch,
    )


def test_a_resized_square_is_the_native_model_on_the_smaller_tiles(model):
    ours, tiles, batch = smaller(model, ((4, 4),) * 3)
    ids = batch["input_ids"][0].tolist()
    gone = ids.index(IMAGE)
    ids = torch.tensor([ids[:gone] + ids[gone + 3 * 20 :]])
    with torch.no_grad():
        native = model(input_ids=ids, pixel_values=torch.stack(tiles)).logits
    assert ours.realised.entering == (48,) * 6
    assert (ours.logits - native).abs().max() < 1e-6


def test_tiles_of_different_shapes_get_interpolated_positions_each(model):
    _, tiles, batch = smaller(model, ((2, 5), (6, 6)))
    family = INTERNVL.engine(model).family
    less = family.resized(family.inputs(batch), ((2, 5), (6, 6)), (0.5,) * 3, (0.5,) * 3)
    state = family.embed(less, None)
    _, units, _ = state.split(state.hidden)
    for tile, ours in zip(tiles, units.split([10, 36]), strict=True):
        with torch.no_grad():
            native = model.model.vision_tower.embeddings(tile[None])[0, 1:]
        rows, columns = tile.shape[1] // 4, tile.shape[2] // 4
        grid = native.view(rows, columns, 32)
        four = torch.stack([grid[r::2, c::2].flatten(0, 1) for r in (0, 1) for c in (0, 1)], 1)
        assert (ours - four).abs().max() < 1e-9


def test_the_question_is_the_text_behind_the_end_of_the_picture(model):
    family, batch = INTERNVL.engine(model).family, INTERNVL.batch(model, THREE)
    ids = batch["input_ids"][0].tolist()
    behind = ids[ids.index(IMAGE) + 3 * 36 + 1 :]
    assert family.inputs(batch).question_ids.tolist() == behind[: behind.index(63)]
    last = torch.tensor([[*ids[: ids.index(IMAGE) + 3 * 36 + 1], 63]])
    assert family.inputs({**batch, "input_ids": last, "attention_mask": None}).question_ids.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"vision_feature_layer": -2}, "last layer"), ({"vision_feature_select_strategy": "full"}, "without CLS")],
)
def test_features_that_are_taken_otherwise_are_refused(change, words):
    other = internvl()
    for name, value in change.items():
        setattr(other.config, name, value)
    with pytest.raises(UsageError, match=words):
        InternVL(other)


def test_a_tower_without_positions_is_refused():
    with pytest.raises(UsageError, match="learned positions"):
        InternVL(internvl(use_absolute_position_embeddings=False))
