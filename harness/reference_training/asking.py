"""Questions about a scene, each with its answer and the boxes of what it is about.

No answer follows from the words: negatives of `exist` are adversarial (the shape is there in another colour), counts
are drawn so that no number dominates, and a shape asked about in `color` and `where` is single in its scene.
"""

from dataclasses import dataclass

import numpy as np

from harness.reference_training.scenes import Box, Scene, Thing
from harness.reference_training.words import CARDS, COLOUR_NAMES, QUADRANTS, SHAPE_NAMES, question

CENTRE_BAND_PX = 10  # `where` leaves alone what lies closer than this to the middle row or column of a 256-pixel image


@dataclass(frozen=True)
class Asked:
    """One question: boxes are those of the things it is about (for a negative, the look-alikes that must be seen)."""

    family: str
    question: str
    answer: str
    boxes: tuple[Box, ...]


def ask(scene: Scene, family: str, rng: np.random.Generator) -> Asked | None:
    """A random question of `family` about the scene, or None where the scene offers none."""
    chosen = _FAMILIES[family](scene, rng)
    if chosen is None:
        return None
    subject, answer, things = chosen
    return Asked(family, question(family, subject), answer, tuple(thing.box for thing in things))


def _pick(things: list[Thing], rng: np.random.Generator) -> Thing | None:
    return things[rng.integers(len(things))] if things else None


def _shapes(scene: Scene) -> list[Thing]:
    return [thing for thing in scene.things if thing.kind == "shape"]


def _singles(scene: Scene) -> list[Thing]:
    shapes = _shapes(scene)
    return [thing for thing in shapes if sum(other.shape == thing.shape for other in shapes) == 1]


def _read(scene: Scene, rng: np.random.Generator):
    sign = _pick([thing for thing in scene.things if thing.kind == "sign"], rng)
    return sign and (COLOUR_NAMES[sign.colour], str(sign.number), [sign])


def _digit(scene: Scene, rng: np.random.Generator):
    card = _pick([thing for thing in scene.things if thing.kind == "card"], rng)
    return card and (CARDS[card.colour], str(card.number), [card])


def _color(scene: Scene, rng: np.random.Generator):
    thing = _pick(_singles(scene), rng)
    return thing and (SHAPE_NAMES[thing.shape], COLOUR_NAMES[thing.colour], [thing])


def _where(scene: Scene, rng: np.random.Generator):
    middle = scene.image.shape[0] / 2
    band = CENTRE_BAND_PX * middle / 128

    def offset(thing: Thing) -> tuple[float, float]:
        x0, y0, x1, y1 = thing.box
        return (x0 + x1) / 2 - middle, (y0 + y1) / 2 - middle

    thing = _pick([t for t in _singles(scene) if min(abs(v) for v in offset(t)) > band], rng)
    if thing is None:
        return None
    right, down = offset(thing)
    return SHAPE_NAMES[thing.shape], QUADRANTS[2 * (down > 0) + (right > 0)], [thing]


def _count(scene: Scene, rng: np.random.Generator):
    shapes = _shapes(scene)
    numbers = {shape: sum(thing.shape == shape for thing in shapes) for shape in sorted({t.shape for t in shapes})}
    if not numbers:
        return None
    repeated = sorted(set(numbers.values()) - {1})
    wanted = repeated[rng.integers(len(repeated))] if repeated and rng.random() > 0.2 else min(numbers.values())
    candidates = [shape for shape, number in numbers.items() if number == wanted]
    shape = candidates[rng.integers(len(candidates))]
    return SHAPE_NAMES[shape], str(wanted), [thing for thing in shapes if thing.shape == shape]


def _exist(scene: Scene, rng: np.random.Generator):
    shapes = _shapes(scene)
    thing = _pick(shapes, rng)
    if thing is None:
        return None
    alike = [other for other in shapes if other.shape == thing.shape]
    if rng.random() < 0.5:
        named = f"{COLOUR_NAMES[thing.colour]} {SHAPE_NAMES[thing.shape]}"
        return named, "yes", [other for other in alike if other.colour == thing.colour]
    worn = {other.colour for other in alike}
    elsewhere = sorted({other.colour for other in scene.things if other.kind != "card"} - worn)
    anywhere = sorted(set(range(len(COLOUR_NAMES))) - worn)
    options = elsewhere if elsewhere and rng.random() < 0.7 else anywhere
    return f"{COLOUR_NAMES[options[rng.integers(len(options))]]} {SHAPE_NAMES[thing.shape]}", "no", alike


_FAMILIES = {"read": _read, "exist": _exist, "color": _color, "count": _count, "where": _where, "digit": _digit}
