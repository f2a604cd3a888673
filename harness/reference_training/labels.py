"""Dense labels of a scene for the auxiliary losses: what lies under every patch and every visual token."""

import numpy as np

from harness.reference_training.architecture import PATCH_PX, UNIT_PX
from harness.reference_training.scenes import Scene
from harness.reference_training.words import COLOUR_NAMES, SHAPE_NAMES

SIGN, CARD, NOTHING = len(SHAPE_NAMES), len(SHAPE_NAMES) + 1, len(SHAPE_NAMES) + 2
KINDS = NOTHING + 1
NO_COLOUR, COLOURS = len(COLOUR_NAMES), len(COLOUR_NAMES) + 1
NO_DIGIT, DIGITS = 10, 11
PATCH_LABELS = {"kind": KINDS, "colour": COLOURS, "glyph": DIGITS}
UNIT_LABELS = {"kind": KINDS, "colour": COLOURS, "tens": DIGITS, "ones": DIGITS, "hand": DIGITS}


def patch_labels(scene: Scene) -> dict[str, np.ndarray]:
    """Per 16-px patch, in merge-unit order (N,): kind and colour of what covers most of it, and the printed digit
    there."""
    side = scene.image.shape[0] // PATCH_PX
    things = scene.things
    areas, which = _covering([thing.box for thing in things], side, PATCH_PX)
    hit = areas >= 40
    digits = [(box, int(str(t.number)[i])) for t in things if t.kind == "sign" for i, box in enumerate(t.digits)]
    digit_areas, digit_which = _covering([box for box, _ in digits], side, PATCH_PX)
    values = np.array([value for _, value in digits] + [NO_DIGIT])
    labels = {
        "kind": np.where(hit, _kinds(scene)[which], NOTHING),
        "colour": np.where(hit, _colours(scene)[which], NO_COLOUR),
        "glyph": np.where(digit_areas >= 36, values[digit_which], NO_DIGIT),
    }
    return {name: merge_order(label) for name, label in labels.items()}


def unit_labels(scene: Scene) -> dict[str, np.ndarray]:
    """Per visual token (32 px), raster order (n,): kind, colour and number of the thing with the largest part in it."""
    side = scene.image.shape[0] // UNIT_PX
    sizes = [(t.box[2] - t.box[0]) * (t.box[3] - t.box[1]) for t in scene.things]
    shares, which = _covering([t.box for t in scene.things], side, UNIT_PX, np.array(sizes, dtype=np.float64))
    hit = shares >= 0.22
    sign = np.array([t.kind == "sign" for t in scene.things] + [False])
    card = np.array([t.kind == "card" for t in scene.things] + [False])
    number = np.array([t.number for t in scene.things] + [-1])
    labels = {
        "kind": np.where(hit, _kinds(scene)[which], NOTHING),
        "colour": np.where(hit, _colours(scene)[which], NO_COLOUR),
        "tens": np.where(hit & sign[which], number[which] // 10, NO_DIGIT),
        "ones": np.where(hit & sign[which], number[which] % 10, NO_DIGIT),
        "hand": np.where(hit & card[which], number[which], NO_DIGIT),
    }
    return {name: label.ravel() for name, label in labels.items()}


def overlaps(boxes: tuple, side_px: int) -> np.ndarray:
    """Per visual token (raster order, (n,)): the largest share of one of the boxes that lies in it, 0..1."""
    sizes = np.array([(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes], dtype=np.float64)
    shares, _ = _covering(list(boxes), side_px // UNIT_PX, UNIT_PX, sizes)
    return shares.ravel()


def target_units(boxes: tuple, side_px: int) -> np.ndarray:
    """Which visual tokens (raster order, bool (n,)) hold at least a seventh of one of the boxes."""
    return overlaps(boxes, side_px) >= 1 / 7


def merge_order(grid: np.ndarray) -> np.ndarray:
    """(side, side, ...) raster patches -> (side * side, ...) with the four patches of a merge unit side by side."""
    side = grid.shape[0]
    split = grid.reshape(side // 2, 2, side // 2, 2, *grid.shape[2:])
    return np.moveaxis(split, 2, 1).reshape(side * side, *grid.shape[2:])


def _kinds(scene: Scene) -> np.ndarray:
    kind = {"sign": SIGN, "card": CARD}
    return np.array([kind.get(thing.kind, thing.shape) for thing in scene.things] + [NOTHING])


def _colours(scene: Scene) -> np.ndarray:
    return np.array([NO_COLOUR if t.kind == "card" else t.colour for t in scene.things] + [NO_COLOUR])


def _covering(boxes: list, side: int, cell: int, sizes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """For each cell of a side x side grid: the largest overlap in px2 (over the box's size, if given), and whose it is
    (the index past the last box where there is none)."""
    if not boxes:
        return np.zeros((side, side)), np.zeros((side, side), dtype=np.int64)
    x0, y0, x1, y1 = np.array(boxes, dtype=np.float64).T
    edge = np.arange(side) * cell
    wide = np.clip(np.minimum(x1[:, None], edge + cell) - np.maximum(x0[:, None], edge), 0, None)  # (b, side)
    high = np.clip(np.minimum(y1[:, None], edge + cell) - np.maximum(y0[:, None], edge), 0, None)
    overlap = high[:, :, None] * wide[:, None, :]  # (b, side, side)
    if sizes is not None:
        overlap = overlap / sizes[:, None, None]
    return overlap.max(axis=0), overlap.argmax(axis=0)
