"""Photographs, fonts, pictograms and digit scans behind the reference suite, split once into train and test.

Nothing here is needed to read the frozen suite. Everything arrives with ordinary packages: the photographs inside
scikit-image, scikit-learn and matplotlib, the 1,797 handwritten digits inside scikit-learn, and Debian's font
packages (MATERIALS.md names them with their licences). Train and test share no photograph, no font file, no pictogram
rendering and no digit scan.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from harness.reference_training.words import SHAPES

DEBIAN_FONTS = Path("/usr/share/fonts")
PHOTOGRAPHS = {
    "train": (
        "skimage/data/astronaut.png",
        "skimage/data/coffee.png",
        "skimage/data/rocket.jpg",
        "skimage/data/motorcycle_left.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/ihc.png",
        "skimage/data/retina.jpg",
        "skimage/data/coins.png",
        "skimage/data/brick.png",
        "skimage/data/grass.png",
        "skimage/data/moon.png",
        "skimage/data/cell.png",
        "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    ),
    "test": (
        "skimage/data/chelsea.png",
        "skimage/data/camera.png",
        "skimage/data/gravel.png",
        "sklearn/datasets/images/china.jpg",
        "sklearn/datasets/images/flower.jpg",
    ),
}
PICTOGRAM_FONTS = {
    "train": (
        "truetype/ancient-scripts/Symbola_hint.ttf",
        "truetype/dejavu/DejaVuSans.ttf",
        "truetype/freefont/FreeSerif.ttf",
        "opentype/unifont/unifont.otf",
        "truetype/libreoffice/opens___.ttf",
    ),
    "test": ("truetype/noto/NotoSansSymbols2-Regular.ttf",),
}
NUMBER_FONTS = {
    "train": (
        "truetype/dejavu/DejaVuSans.ttf",
        "truetype/dejavu/DejaVuSans-Bold.ttf",
        "truetype/dejavu/DejaVuSansMono-Bold.ttf",
        "truetype/dejavu/DejaVuSerif-Bold.ttf",
        "truetype/liberation/LiberationSans-Regular.ttf",
        "truetype/liberation/LiberationSans-Bold.ttf",
        "truetype/liberation/LiberationSerif-Bold.ttf",
        "truetype/liberation/LiberationMono-Bold.ttf",
        "truetype/freefont/FreeSansBold.ttf",
        "truetype/freefont/FreeSerifBold.ttf",
        "truetype/lato/Lato-Bold.ttf",
        "truetype/lato/Lato-Medium.ttf",
        "truetype/hack/Hack-Bold.ttf",
        "truetype/noto/NotoSans-Bold.ttf",
    ),
    "test": ("truetype/open-sans/OpenSans-Bold.ttf", "truetype/roboto/unhinted/RobotoTTF/Roboto-Bold.ttf"),
}
DIGITS_IN_TEST = 400  # the last scans of the set


class MaterialsMissing(RuntimeError):
    """A package that the generator draws from is not installed."""


@dataclass(frozen=True)
class Materials:
    """One split's material, decoded. photographs: uint8 (H, W, 3); pictograms: shape -> float masks (h, w) in [0, 1];
    numbers: font files; digits: float (N, 8, 8) in [0, 1] with labels (N,)."""

    photographs: tuple[np.ndarray, ...]
    pictograms: dict[str, tuple[np.ndarray, ...]]
    number_fonts: tuple[Path, ...]
    digits: np.ndarray
    digit_labels: np.ndarray


def load_materials(split: str) -> Materials:
    """The material of `split` ("train" or "test"). Raises MaterialsMissing naming the package to install."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    images, labels = scans.images.astype(np.float32) / 16.0, scans.target.astype(np.int64)
    chosen = slice(None, -DIGITS_IN_TEST) if split == "train" else slice(-DIGITS_IN_TEST, None)
    fonts = tuple(_font_file(name) for name in PICTOGRAM_FONTS[split])
    return Materials(
        photographs=tuple(_photograph(name) for name in PHOTOGRAPHS[split]),
        pictograms={shape: _pictograms(symbol, fonts) for shape, symbol in SHAPES.items()},
        number_fonts=tuple(_font_file(name) for name in NUMBER_FONTS[split]),
        digits=images[chosen],
        digit_labels=labels[chosen],
    )


def missing_materials() -> list[str]:
    """What the generator would need and does not find, one line each; empty when it can run."""
    wanted = []
    for split in ("train", "test"):
        for name in PHOTOGRAPHS[split]:
            if find_spec(name.split("/")[0]) is None:
                wanted.append(f"python package {name.split('/')[0]} ({name})")
        for name in (*PICTOGRAM_FONTS[split], *NUMBER_FONTS[split]):
            if not (DEBIAN_FONTS / name).is_file():
                wanted.append(f"font {DEBIAN_FONTS / name}")
    if find_spec("sklearn") is None:
        wanted.append("python package scikit-learn")
    return wanted


def _photograph(name: str) -> np.ndarray:
    package, _, rest = name.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MaterialsMissing(f"{name} is missing; install the python package that brings {package}")
    return np.asarray(Image.open(Path(spec.origin).parent / rest).convert("RGB"))


def _font_file(name: str) -> Path:
    path = DEBIAN_FONTS / name
    if not path.is_file():
        raise MaterialsMissing(f"font {path} is missing; MATERIALS.md names the Debian package that brings it")
    return path


def _pictograms(symbol: str, fonts: tuple[Path, ...]) -> tuple[np.ndarray, ...]:
    """The symbol in each font that has it, cropped to its ink, long side about 128 pixels."""
    from fontTools.ttLib import TTFont

    masks = []
    for path in fonts:
        if ord(symbol) not in TTFont(path, lazy=True).getBestCmap():
            continue
        face = ImageFont.truetype(path, 160)
        canvas = Image.new("L", (400, 400))
        ImageDraw.Draw(canvas).text((200, 200), symbol, font=face, fill=255, anchor="mm")
        box = canvas.getbbox()
        if box is None:
            raise MaterialsMissing(f"{path} draws nothing for {symbol!r}")
        ink = canvas.crop(box)
        scale = 128 / max(ink.size)
        ink = ink.resize(
            (max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.BICUBIC
        )
        masks.append(np.asarray(ink, dtype=np.float32) / 255.0)
    if not masks:
        raise MaterialsMissing(f"no font of this split draws {symbol!r}")
    return tuple(masks)
