"""One golden file: its arrays, and the comparisons that a check makes with them."""

from __future__ import annotations

import copy
import lzma
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.base import Shape, Signal, Site, View

UNREADABLE = (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class Mismatch(Exception):
    """What we compute is not what the file holds, or the file does not hold what its kind must."""


class NotAssertable(Exception):
    """Everything that can be compared was, and agrees; says what cannot be compared."""


class GoldenCase:
    """The arrays of one file by name. `read`: the names that were asked for.

    Raises Mismatch for a file that cannot be read and for a name that it lacks. Nothing is unpickled.
    """

    def __init__(self, path: Path):
        self.path = path
        self.read: set[str] = set()
        self._prefix = ""
        try:
            with np.load(path, allow_pickle=False) as stored:
                self._arrays = {name: stored[name] for name in stored.files}
        except UNREADABLE as error:
            raise Mismatch(f"cannot be read as .npz: {_first_line(error)}") from error
        except (AttributeError, TypeError) as error:  # a bare array: numpy opens it, but it has no names
            raise Mismatch("is no .npz archive") from error

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name.removeprefix(self._prefix) for name in self._arrays if name.startswith(self._prefix))

    def size_of(self, name: str) -> int:
        """Numbers in an array; 0 for one that is no array but a number or a text."""
        array = self._arrays[name]
        return array.size if array.ndim else 0

    def cases(self) -> list[GoldenCase]:
        """The cases of a file of several, whose arrays are named CASE__ARRAY; they note what they read in this one."""
        prefixes = dict.fromkeys(name.partition("__")[0] + "__" for name in self._arrays if "__" in name)
        if not prefixes:
            raise Mismatch("holds no case; the arrays of a file of several are named CASE__ARRAY")
        parts = [copy.copy(self) for _ in prefixes]
        for part, prefix in zip(parts, prefixes, strict=True):
            part._prefix = prefix
        return parts

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._arrays

    def __getitem__(self, name: str) -> np.ndarray:
        name = self._prefix + name
        if name not in self._arrays:
            raise Mismatch(f"lacks the array {name!r}")
        self.read.add(name)
        return self._arrays[name]

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self[name])

    def integer(self, name: str, most: int = 1_000_000) -> int:
        """A whole number. Raises Mismatch beyond `most`: nothing in a golden file is so large, and loops run on it."""
        value = int(self[name])
        if abs(value) > most:
            raise Mismatch(f"{name} is {value}, which is no number of tokens, layers or steps")
        return value

    def number(self, name: str) -> float:
        return float(self[name])

    def text(self, name: str) -> str:
        return str(self[name])

    def beside(self, name: str) -> GoldenCase:
        """Another file of the same folder. Raises Mismatch where there is none."""
        if Path(name).name != name or not (self.path.parent / name).is_file():
            raise Mismatch(f"needs {name!r}, which does not lie beside it")
        return GoldenCase(self.path.parent / name)

    def equals(self, name: str, ours: Tensor | np.ndarray | Sequence[object] | object) -> None:
        """Raise Mismatch unless `ours` is exactly the array `name`."""
        same(self._prefix + name, ours, self[name])

    def close(self, name: str, ours: Tensor, tolerance: float) -> None:
        """Raise Mismatch unless `ours` is within `tolerance` (absolute) of the array `name`."""
        close(self._prefix + name, ours, self[name], tolerance)


def same(label: str, ours: Tensor | np.ndarray | Sequence[object] | object, theirs: np.ndarray) -> None:
    """Raise Mismatch unless both hold the same numbers."""
    mine = np.asarray(ours)
    if mine.shape != theirs.shape:
        raise Mismatch(f"{label}: ours has shape {mine.shape}, the file {theirs.shape}")
    differing = np.flatnonzero(mine != theirs)
    if len(differing):
        first = differing[0]
        raise Mismatch(
            f"{label}: {len(differing)} of {mine.size} entries differ, the first at {first}: "
            f"ours {mine.flat[first]}, the file {theirs.flat[first]}"
        )


def close(label: str, ours: Tensor, theirs: np.ndarray, tolerance: float) -> None:
    """Raise Mismatch unless both agree within `tolerance` (absolute); not-a-number agrees with nothing."""
    mine = ours.detach().numpy()
    if mine.shape != theirs.shape:
        raise Mismatch(f"{label}: ours has shape {mine.shape}, the file {theirs.shape}")
    if not mine.size:
        return
    gap = np.abs(mine.astype(np.float64) - theirs.astype(np.float64))
    if not gap.max() <= tolerance:
        raise Mismatch(f"{label}: differs by {gap.max():.3g} at most, {tolerance:g} is allowed")


def agree(statement: str, true: bool) -> None:
    """Raise Mismatch with a statement that does not hold."""
    if not true:
        raise Mismatch(f"does not hold: {statement}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def view_of(
    site: Site,
    hidden: Tensor,
    keep: int | None,
    shape: Shape,
    signals: Mapping[Signal, Tensor] | None = None,
    seed: int = 0,
    prepared: Any = None,
) -> View:
    """The view of all units of `shape`, none pruned yet. Raises ValueError unless hidden has a row for each."""
    if hidden.shape[0] != shape.n:
        raise ValueError(f"{shape.n} units need as many rows, got {hidden.shape[0]}")
    image = torch.repeat_interleave(torch.arange(len(shape.grids)), torch.tensor(shape.images))
    unit = torch.cat([torch.arange(n) for n in shape.images])
    kind, size = torch.zeros_like(image), torch.ones(shape.n)
    return View(site, hidden, keep, image, unit, kind, size, shape, seed, signals=signals or {}, prepared=prepared)
