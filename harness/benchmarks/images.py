"""Decoding an image that may be torn, mislabelled or a decompression bomb."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from harness.records.errors import UndecodableImage

MAX_PIXELS = 50_000_000
_FAILURES = (  # PIL raises SyntaxError for a broken PNG, ValueError or EOFError for some torn files
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode(source: Path | bytes, name: str = "") -> Image.Image:
    """An image from a file or from its bytes, fully decoded to RGB; `name` says in messages what it was.

    Raises UndecodableImage, naming the image and the reason.
    """
    name = name or str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                pixels = image.width * image.height
                if pixels > MAX_PIXELS:
                    raise UndecodableImage(f"{name} has {pixels / 1e6:.0f} Mpx; the cap is {MAX_PIXELS / 1e6:.0f} Mpx")
                return image.convert("RGB")
    except _FAILURES as error:
        raise UndecodableImage(f"cannot decode {name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why, without the path on this machine, which a record must not hold."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def decode_cell(cell: Any, name: str) -> Image.Image:
    """The image in a table's cell: bytes, a mapping with `bytes` as hub data sets have it, or base64 text.

    Raises UndecodableImage, naming the cell, also where it is empty.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes")
    if not cell:
        raise UndecodableImage(f"{name} is empty")
    if isinstance(cell, str):
        try:
            cell = base64.b64decode(cell, validate=True)
        except binascii.Error as error:
            raise UndecodableImage(f"{name} is no base64: {error}") from error
    return decode(cell, name)


def image_size(cell: dict[str, Any]) -> tuple[int, int]:
    """Width and height of the image in a hub data set's cell, read from its header; (1, 1) where there is none.

    Such a sample becomes an error row when its image is asked for.
    """
    try:
        with Image.open(io.BytesIO(cell["bytes"])) as image:
            return image.size
    except (*_FAILURES, TypeError):
        return 1, 1
