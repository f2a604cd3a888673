"""Backgrounds: crops of real photographs, and synthetic textures beside them."""

import numpy as np
from PIL import Image

SYNTHETIC_SHARE = 0.2
CONTRAST = (0.45, 0.95)


def background(photographs: tuple[np.ndarray, ...], side: int, rng: np.random.Generator) -> np.ndarray:
    """A uint8 (side, side, 3) background: a crop of one photograph at a random scale, or (one in five) a texture."""
    if rng.random() < SYNTHETIC_SHARE:
        picture = _texture(side, rng)
    else:
        photograph = photographs[rng.integers(len(photographs))]
        picture = _crop(photograph, side, rng).astype(np.float32)
    contrast, level = rng.uniform(*CONTRAST), rng.uniform(70, 185)
    return np.clip((picture - picture.mean()) * contrast + level, 0, 255).astype(np.uint8)


def _crop(photograph: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    height, width = photograph.shape[:2]
    window = int(rng.integers(min(side, height, width) // 2, min(height, width, 3 * side) + 1))
    top, left = int(rng.integers(height - window + 1)), int(rng.integers(width - window + 1))
    crop = Image.fromarray(photograph[top : top + window, left : left + window])
    crop = crop.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    turned = np.rot90(np.asarray(crop), int(rng.integers(4)))
    return turned[:, ::-1] if rng.random() < 0.5 else turned


def _texture(side: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of one octave mixed with stripes, in two colours; float32 (side, side, 3)."""
    cells = int(rng.integers(4, 40))
    noise = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 48)
    stripes = 0.5 + 0.5 * np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * 2 * np.pi / period)
    share = rng.uniform(0, 0.6)
    blend = (1 - share) * np.asarray(noise, dtype=np.float32) / 255.0 + share * stripes
    first, second = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    return (first + blend[..., None] * (second - first)).astype(np.float32)
