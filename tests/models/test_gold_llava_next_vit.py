"""LLaVA-NeXT's tower on what masks cannot express, against a second, plain implementation: one token a row, no batches.

[Q-CLS] in each tile, an aggregate of all tiles of a picture that stands in its first one, and the rows of attention
that a CLS has on a tile with padding.
"""

from dataclasses import dataclass, replace

import gold
import pytest
import torch
from gold import FACE
from test_gold_llava_next import NEXT, TWO, WIDE
from tiny import Scripted

from harness.models.families.tiles import TiledState
from harness.models.vision_state import VisionState
from harness.validate.tiny import llava_next
from methods import build
from methods.base import AGGREGATE, IN_VIT, Budget, Selection, Signal, Site

FIRST, SECOND = Site(IN_VIT, 1), Site(IN_VIT, 4)
EXTRA = torch.linspace(-1, 1, 64, dtype=torch.float64).view(2, 32)
SIGNAL = Signal("rows", "vit", 7, "cls")


@pytest.fixture(scope="module")
def model():
    return llava_next(torch.float64)


@dataclass(frozen=True)
class WithExtra(Scripted):
    def extra_vit_tokens(self, question, patches, prepared):
        return EXTRA


def stays(site, image, unit):
    """Nested: what the first cut drops the second does not know."""
    return (unit + image) % 2 == 0 if site == FIRST else (unit + image) % 6 == 0


def weight_of(unit):
    return 0.02 * (1 + unit % 5)


def gather(site):
    """Units go by their numbers, into the running aggregate of their image."""

    def decide(view):
        carried = view.kind == AGGREGATE
        kept = torch.tensor([stays(site, int(i), int(u)) for i, u in zip(view.image, view.unit, strict=True)])
        weights = torch.tensor([weight_of(int(unit)) for unit in view.unit], dtype=torch.float64)
        weights = torch.where(carried, 0.7, torch.where(kept, 0, weights))
        return Selection(torch.nonzero(kept & ~carried).flatten(), aggregate=weights[:, None])

    return decide


def tiles_of(model, inputs):
    """Tokens of each tile by name: "cls", ("extra", i), patches by (image, unit), padding by ("padding", place)."""
    geometry, tower = inputs.geometry, model.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    places = zip(geometry["patch"].tolist(), geometry["image"].tolist(), geometry["unit"].tolist(), strict=True)
    names = {patch: (image, unit) for patch, image, unit in places}
    tiles = []
    for number, pixels in enumerate(inputs.pixels):
        native = tower.pre_layrnorm(tower.embeddings(pixels[None].double())[0])  # (1 + 36, d)
        tokens = {"cls": native[0]}
        for place in range(36):
            tokens[names.get(36 * number + place, ("padding", place))] = native[1 + place]
        tiles.append(tokens)
    return tiles


@torch.no_grad()
def plain_vit(model, inputs, owners, cuts=(), extra=()):
    """Tokens of each tile after the blocks that are used, and the mean attention of CLS in the last of them by name."""
    tower = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)
    tiles, seen = tiles_of(model, inputs), []
    tiles = [{**{("extra", i): row for i, row in enumerate(extra)}, **tokens} for tokens in tiles]
    for number, block in enumerate(tower.encoder.layers[:-1]):
        seen = []
        for tile, tokens in enumerate(tiles):
            hidden = torch.stack(list(tokens.values()))
            attention, normal = block.self_attn, block.layer_norm1(hidden)
            query, key, value = (
                project(normal).view(-1, 2, 16) for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            weights = (torch.einsum("ihd,jhd->hij", query, key) / 4).softmax(-1)
            mixed = torch.einsum("hij,jhd->ihd", weights, value).flatten(1)
            hidden = hidden + attention.out_proj(mixed)
            hidden = hidden + block.mlp(block.layer_norm2(hidden))
            names = list(tokens)
            seen.append(dict(zip(names, weights[:, names.index("cls")].mean(0).tolist(), strict=True)))
            tiles[tile] = dict(zip(names, hidden, strict=True))
        if Site(IN_VIT, number) in cuts:
            tiles = cut(tiles, owners, Site(IN_VIT, number))
    return tiles, seen


def cut(tiles, owners, site):
    """Padding ends; units that go and the aggregate so far become the aggregate in the first tile of their image."""
    totals = {owner: 0 for owner in owners}
    left = []
    for tokens, owner in zip(tiles, owners, strict=True):
        kept = {}
        for name, row in tokens.items():
            if name == "cls" or name[0] == "extra":
                kept[name] = row
            elif name == "aggregate":
                totals[owner] = totals[owner] + 0.7 * row
            elif name[0] != "padding" and stays(site, *name):
                kept[name] = row
            elif name[0] != "padding":
                totals[owner] = totals[owner] + weight_of(name[1]) * row
        left.append(kept)
    for owner, total in totals.items():
        left[owners.index(owner)]["aggregate"] = total
    return left


def aggregate_error(model, sizes):
    pruner = WithExtra({site: gather(site) for site in (FIRST, SECOND)})
    engine = NEXT.engine(model, pruner)
    inputs = engine.family.inputs(NEXT.batch(model, sizes))
    ours, _ = gold.encoded(engine, inputs, pruner)
    owners = [owner for owner, _, _ in inputs.shape.tiles]
    tiles, _ = plain_vit(model, inputs, owners, (FIRST, SECOND), EXTRA)
    rows = []
    for owner in dict.fromkeys(owners):
        mine = {name: row for tokens, whose in zip(tiles, owners, strict=True) if whose == owner
                for name, row in tokens.items() if name != "cls" and name[0] != "extra"}  # fmt: skip
        rows += [row for name, row in sorted(mine.items(), key=lambda one: one[0][1] if one[0] != "aggregate" else 999)]
    plain = model.model.multi_modal_projector(torch.stack(rows)).detach()
    assert plain.std() > 0.5
    return (ours - plain).abs().max().item() if ours.shape == plain.shape else torch.inf


@pytest.mark.parametrize("sizes", [WIDE, TWO])
def test_extra_tokens_and_an_images_aggregate_equal_the_plain_tower(model, sizes):
    assert aggregate_error(model, sizes) < 1e-9


def cls_rows(model, sizes):
    """(signal at the interface, the same from the plain tower with zeros for newlines)."""
    seen = {}

    def look(view):
        seen.update(signal=view.signal(SIGNAL), image=view.image, unit=view.unit)
        return Selection(torch.arange(view.n))

    pruner = Scripted({FACE: look}, signals=(SIGNAL,))
    engine = NEXT.engine(model, pruner)
    inputs = engine.family.inputs(NEXT.batch(model, sizes))
    gold.encoded(engine, inputs, pruner)
    _, rows = plain_vit(model, inputs, [owner for owner, _, _ in inputs.shape.tiles])
    plain = {name: value for tile in rows for name, value in tile.items()}
    places = zip(seen["image"].tolist(), seen["unit"].tolist(), strict=True)
    return seen["signal"].flatten(), torch.tensor([plain.get(place, 0.0) for place in places])


@pytest.mark.parametrize("sizes", [WIDE, TWO])
def test_attention_rows_of_cls_are_those_of_the_plain_tower_on_padded_tiles_too(model, sizes):
    ours, plain = cls_rows(model, sizes)
    assert (ours - plain).abs().max() < 1e-6 and plain.max() > 0.02  # signals are float32


def test_the_tokens_that_visionzip_calls_dominant_are_those_that_cls_looks_at(model):
    _, plain = cls_rows(model, TWO)
    engine = NEXT.engine(model, build("visionzip"))
    inputs = engine.family.inputs(NEXT.batch(model, TWO))
    trace = engine.prefill(inputs, engine.plan(Budget("layer_average", 40), inputs.shape)).trace
    image, unit = trace.kept[FACE.label]
    starts = torch.tensor(inputs.shape.images).cumsum(0) - torch.tensor(inputs.shape.images)
    kept = (starts[image] + unit)[unit >= 0].unique()
    best = [
        (start + plain[start : start + n].argmax()).item() for start, n in zip(starts, inputs.shape.images, strict=True)
    ]
    assert set(best) <= set(kept.tolist())


# Mutations


def test_mutation_the_aggregate_stands_in_every_tile_of_its_image(model, monkeypatch):
    monkeypatch.setattr(VisionState, "_gathering", lambda self, kept: dict(enumerate(self.owners)))
    assert aggregate_error(model, WIDE) > 0.01


def test_mutation_extra_tokens_before_the_tiles_are_in_order(model, monkeypatch):
    monkeypatch.setattr(TiledState, "with_extra", VisionState.with_extra)
    monkeypatch.setattr(TiledState, "in_order", lambda self: replace(self, back=self.back[:0]))
    assert aggregate_error(model, TWO) > 0.01


def test_mutation_signals_in_the_order_of_the_tower(model, monkeypatch):
    monkeypatch.setattr(TiledState, "captures_in_order", lambda self, captures: captures)
    ours, plain = cls_rows(model, TWO)
    assert (ours - plain).abs().max() > 1e-3
