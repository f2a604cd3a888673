"""Scenes: things laid on a background without touching, drawn, with a box for each.

Two kinds. *Crowded* scenes are for reading: 6-8 signs alike but for the colour of their frame, among shapes, 12-25
things in all. *Moderate* scenes serve the other families: some shapes repeated for counting, others single, and up to
two cards. Counts are for 256-pixel images and shrink with the area of smaller ones, which training starts from.
"""

from dataclasses import dataclass

import numpy as np

from harness.reference_training.backgrounds import background
from harness.reference_training.materials import Materials
from harness.reference_training.sprites import Sprite, SpriteBank
from harness.reference_training.words import COLOUR_NAMES, SHAPE_NAMES

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """One drawn thing. kind: "shape", "sign" or "card"; `colour` indexes COLOUR_NAMES (CARDS for a card); `shape`
    indexes SHAPE_NAMES or is -1; `number` is what is written on it or -1; boxes are (x0, y0, x1, y1) pixels, ends
    exclusive."""

    kind: str
    colour: int
    shape: int
    number: int
    box: Box
    digits: tuple[Box, ...]


@dataclass(frozen=True)
class Scene:
    """image: uint8 (side, side, 3). crowded: whether it was laid out for reading."""

    image: np.ndarray
    things: tuple[Thing, ...]
    crowded: bool


def make_scene(materials: Materials, bank: SpriteBank, rng: np.random.Generator, side: int, crowded: bool) -> Scene:
    """One scene of `side` pixels. What does not fit after 60 tries is left out."""
    area_ratio = (side / 256) ** 2
    sprites = _crowded_sprites(bank, rng, area_ratio) if crowded else _moderate_sprites(bank, rng, area_ratio)
    canvas = background(materials.photographs, side, rng).astype(np.float32)
    taken = np.zeros((0, 4), dtype=np.int64)
    things = []
    for sprite, thing in sprites:
        corner = _free_corner(taken, sprite.size, side, rng)
        if corner is None:
            continue
        (x, y), (width, height) = corner, sprite.size
        patch = canvas[y : y + height, x : x + width]
        patch += sprite.alpha * (sprite.rgb - patch)
        box = (x, y, x + width, y + height)
        taken = np.concatenate([taken, np.array([box])])
        digits = tuple((x + a, y + b, x + c, y + d) for a, b, c, d in sprite.digits)
        things.append(Thing(thing.kind, thing.colour, thing.shape, thing.number, box, digits))
    return Scene(np.clip(canvas + 0.5, 0, 255).astype(np.uint8), tuple(things), crowded)


Draft = tuple[Sprite, Thing]


def _scaled(low: int, high: int, area_ratio: float, rng: np.random.Generator, least: int) -> int:
    return max(
        least, int(rng.integers(round(low * area_ratio), max(round(low * area_ratio), round(high * area_ratio)) + 1))
    )


def _crowded_sprites(bank: SpriteBank, rng: np.random.Generator, area_ratio: float) -> list[Draft]:
    signs = min(_scaled(6, 8, area_ratio, rng, least=2), len(COLOUR_NAMES))
    colours = rng.permutation(len(COLOUR_NAMES))[:signs]
    drafts = [_sign(bank, int(colour), rng) for colour in colours]
    shapes = _scaled(6, 14, area_ratio, rng, least=2)
    drafts += [
        _shape(bank, int(rng.integers(len(SHAPE_NAMES))), int(rng.integers(len(COLOUR_NAMES))), rng)
        for _ in range(shapes)
    ]
    if rng.random() < 0.4:
        drafts.append(_card(bank, int(rng.integers(2)), rng))
    return drafts


def _moderate_sprites(bank: SpriteBank, rng: np.random.Generator, area_ratio: float) -> list[Draft]:
    total = _scaled(6, 11, area_ratio, rng, least=3)
    kinds = iter(rng.permutation(len(SHAPE_NAMES)).tolist())
    shapes: list[int] = []
    most = 4 if area_ratio > 0.5 else 3
    shapes += [next(kinds)] * int(rng.integers(2, min(most, total) + 1))
    if total - len(shapes) >= 3:
        shapes += [next(kinds)] * int(rng.integers(2, min(most, total - len(shapes)) + 1))
    while len(shapes) < total:
        shapes.append(next(kinds))
    palette = rng.permutation(len(COLOUR_NAMES))[: int(rng.integers(3, 7))]  # few colours: each recurs on other shapes
    drafts = [_shape(bank, shape, int(palette[rng.integers(len(palette))]), rng) for shape in shapes]
    if area_ratio > 0.5:
        cards, signs = int(rng.integers(3)), int(rng.integers(3))
    else:
        cards, signs = int(rng.integers(2)), int(rng.integers(2))
    drafts += [_card(bank, int(card), rng) for card in rng.permutation(2)[:cards]]
    drafts += [_sign(bank, int(colour), rng) for colour in rng.permutation(len(COLOUR_NAMES))[:signs]]
    return drafts


def _shape(bank: SpriteBank, shape: int, colour: int, rng: np.random.Generator) -> Draft:
    return bank.shape(shape, colour, rng), Thing("shape", colour, shape, -1, (0, 0, 0, 0), ())


def _sign(bank: SpriteBank, colour: int, rng: np.random.Generator) -> Draft:
    number = int(rng.integers(10, 100))
    return bank.sign(colour, number, rng), Thing("sign", colour, -1, number, (0, 0, 0, 0), ())


def _card(bank: SpriteBank, card: int, rng: np.random.Generator) -> Draft:
    sprite, number = bank.card(card, rng)
    return sprite, Thing("card", card, -1, number, (0, 0, 0, 0), ())


def _free_corner(
    taken: np.ndarray, size: tuple[int, int], side: int, rng: np.random.Generator
) -> tuple[int, int] | None:
    """A corner for a box of `size` at least two pixels from every box taken, or None after 60 tries."""
    width, height = size
    if width > side - 2 or height > side - 2:
        return None
    xs, ys = rng.integers(1, side - width, 60), rng.integers(1, side - height, 60)
    if len(taken) == 0:
        return int(xs[0]), int(ys[0])
    apart = (
        (xs[:, None] >= taken[None, :, 2] + 2)
        | (xs[:, None] + width + 2 <= taken[None, :, 0])
        | (ys[:, None] >= taken[None, :, 3] + 2)
        | (ys[:, None] + height + 2 <= taken[None, :, 1])
    ).all(axis=1)  # (60,)
    if not apart.any():
        return None
    first = int(apart.argmax())
    return int(xs[first]), int(ys[first])
