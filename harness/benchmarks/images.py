"""Decoding an image that may be torn, mislabelled or a decompression bomb."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from harness.errors import UndecodableImage

MAX_PIXELS = 50_000_000
_DECODING_FAILURES = (  # PIL raises SyntaxError for a broken PNG, ValueError or EOFError for some torn files
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode(path: Path) -> Image.Image:
    """The image at `path`, fully decoded to RGB. Raises UndecodableImage, naming the file and the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels = image.width * image.height
                if pixels > MAX_PIXELS:
                    raise UndecodableImage(f"{path} has {pixels / 1e6:.0f} Mpx; the cap is {MAX_PIXELS / 1e6:.0f} Mpx")
                return image.convert("RGB")
    # PIL raises SyntaxError for broken PNG and ValueError or EOFError for some torn files
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as e:
        raise UndecodableImage(f"cannot decode {path}: {str(e) or type(e).__name__}") from e
