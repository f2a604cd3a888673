"""Small drawings: coloured pictograms with an outline, signs with a two-digit number, cards with a handwritten digit.

A sprite is (rgb, alpha): float32 (h, w, 3) in 0..255 and (h, w, 1) in 0..1. Training draws pictograms and numbers
from banks rendered once (`SpriteBank`), because a scene has a budget of about four milliseconds; the suite uses the
same code.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from harness.reference_training.materials import Materials
from harness.reference_training.words import COLOUR_JITTER, COLOUR_NAMES, COLOURS, SHAPE_NAMES

SHAPE_PX = (24, 38)
NUMBER_PX = (14, 19)
FRAME_PX = (4, 6)
CARD_PX = (28, 34)
_CENTRES = np.array([COLOURS[name] for name in COLOUR_NAMES], dtype=np.float32)


@dataclass(frozen=True)
class Sprite:
    """One drawing. `digits`: boxes (x0, y0, x1, y1) of the digits inside it, left to right, relative to its corner."""

    rgb: np.ndarray
    alpha: np.ndarray
    digits: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.alpha.shape[1], self.alpha.shape[0]


class SpriteBank:
    """Pictogram masks and number masks of one split, `variants` per shape, transformed at random once."""

    def __init__(self, materials: Materials, rng: np.random.Generator, variants: int, numbers_each: int) -> None:
        self.digits, self.digit_labels = materials.digits, materials.digit_labels
        self.shapes = [
            [_shape_masks(masks[rng.integers(len(masks))], rng) for _ in range(variants)]
            for masks in (materials.pictograms[name] for name in SHAPE_NAMES)
        ]
        faces = {
            (path, px): ImageFont.truetype(path, px)
            for path in materials.number_fonts
            for px in range(round(NUMBER_PX[0] / 0.72), round(NUMBER_PX[1] / 0.72) + 1)
        }
        keys = list(faces)
        self.numbers = {
            number: [_number_mask(number, faces[keys[rng.integers(len(keys))]]) for _ in range(numbers_each)]
            for number in range(10, 100)
        }

    def shape(self, shape: int, colour: int, rng: np.random.Generator) -> Sprite:
        """A filled pictogram with a thin dark or light outline."""
        variants = self.shapes[shape]
        fill, halo = variants[rng.integers(len(variants))]
        outline = 245.0 if rng.random() < 0.5 else 15.0
        rgb = outline + fill * (_tint(colour, rng) - outline)
        return Sprite(rgb, halo)

    def sign(self, colour: int, number: int, rng: np.random.Generator) -> Sprite:
        """Black digits on a white plate inside a thick frame of `colour`."""
        variants = self.numbers[number]
        ink, middle = variants[rng.integers(len(variants))]
        frame, pad_x, pad_y = int(rng.integers(FRAME_PX[0], FRAME_PX[1] + 1)), 2, 2
        height, width = ink.shape[0] + 2 * (frame + pad_y), ink.shape[1] + 2 * (frame + pad_x)
        rgb = np.empty((height, width, 3), dtype=np.float32)
        rgb[:] = _tint(colour, rng)
        rgb[frame:-frame, frame:-frame] = rng.uniform(235, 255)
        top, left = frame + pad_y, frame + pad_x
        plate = rgb[top : top + ink.shape[0], left : left + ink.shape[1]]
        plate *= 1.0 - ink * rng.uniform(0.88, 1.0)
        bottom, right = top + ink.shape[0], left + ink.shape[1]
        digits = ((left, top, left + middle, bottom), (left + middle, top, right, bottom))
        return Sprite(rgb, np.ones((height, width, 1), dtype=np.float32), digits)

    def card(self, card: int, rng: np.random.Generator) -> tuple[Sprite, int]:
        """A handwritten digit on a plain card, dark on white (card 0) or light on black (card 1), and its value."""
        chosen = int(rng.integers(len(self.digits)))
        side = int(rng.integers(CARD_PX[0], CARD_PX[1] + 1))
        inner = side - 6
        scan = Image.fromarray((self.digits[chosen] * 255).astype(np.uint8)).resize(
            (inner, inner), Image.Resampling.BICUBIC
        )
        ink = np.zeros((side, side, 1), dtype=np.float32)
        ink[3:-3, 3:-3, 0] = np.asarray(scan, dtype=np.float32) / 255.0
        paper, pen = (
            (rng.uniform(235, 255), rng.uniform(0, 30)) if card == 0 else (rng.uniform(0, 25), rng.uniform(230, 255))
        )
        rgb = np.repeat(paper + ink * (pen - paper), 3, axis=2).astype(np.float32)
        alpha = np.ones((side, side, 1), dtype=np.float32)
        return Sprite(rgb, alpha, ((3, 3, side - 3, side - 3),)), int(self.digit_labels[chosen])


def _tint(colour: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(_CENTRES[colour] + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3).astype(np.float32), 0, 255)


def _shape_masks(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A mask turned, stretched and scaled to SHAPE_PX: (fill, fill with outline), each float (h, w, 1)."""
    ink = Image.fromarray((mask * 255).astype(np.uint8))
    ink = ink.resize(
        (max(8, round(ink.width * rng.uniform(0.85, 1.15))), max(8, round(ink.height * rng.uniform(0.85, 1.15)))),
        Image.Resampling.BILINEAR,
    )
    ink = ink.rotate(rng.uniform(-14, 14), Image.Resampling.BICUBIC, expand=True)
    ink = ink.crop(ink.getbbox())
    scale = rng.uniform(*SHAPE_PX) / max(ink.size)
    width, height = max(6, round(ink.width * scale)), max(6, round(ink.height * scale))
    canvas = Image.new("L", (width + 4, height + 4))
    canvas.paste(
        ink.resize((width, height), Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR), (2, 2)
    )
    fill = np.asarray(canvas, dtype=np.float32) / 255.0
    wide = (
        np.asarray(canvas.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.BoxBlur(0.6)), dtype=np.float32) / 255.0
    )
    return fill[..., None], np.maximum(np.clip(wide * 1.3, 0, 1), fill)[..., None]


def _number_mask(number: int, face: ImageFont.FreeTypeFont) -> tuple[np.ndarray, int]:
    """The number's ink, float (h, w, 1) cropped to it, and the column where the second digit begins."""
    canvas = Image.new("L", (80, 60))
    draw = ImageDraw.Draw(canvas)
    draw.text((20, 45), str(number), font=face, fill=255, anchor="ls")
    left, top, right, bottom = canvas.getbbox()
    middle = round(20 + draw.textlength(str(number)[0], font=face)) - left
    ink = np.asarray(canvas.crop((left, top, right, bottom)), dtype=np.float32) / 255.0
    return ink[..., None], min(max(middle, 1), right - left - 1)
