"""What became of each unit of an image after each site, from the masks of a record."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

PATCHES = "patches"  # a mask over single patches, not units
DROPPED, GONE, MERGED, KEPT = range(4)  # gone: dropped or merged, the record does not say which
WORDS = ("dropped", "dropped or merged", "merged into a kept token", "kept")


def stages(kept: Mapping[str, str], merged: Mapping[str, str], units: int) -> dict[str, NDArray[np.int8]]:
    """Site -> (units,) DROPPED | GONE | MERGED | KEPT, in the order in which the model comes to the sites.

    kept, merged: as in a record, site -> hexadecimal, bit i = unit i. A kept mask that is no number is left out.
    """
    found = {site: _states(mask, merged.get(site), units) for site, mask in kept.items() if site != PATCHES}
    return {site: found[site] for site in sorted(found, key=_depth) if found[site] is not None}


def _states(kept: str, merged: str | None, units: int) -> NDArray[np.int8] | None:
    own = bits(kept, units)
    if own is None:
        return None
    joined = None if merged is None else bits(merged, units)
    state = np.full(units, GONE if joined is None else DROPPED, dtype=np.int8)
    if joined is not None:
        state[joined] = MERGED
    state[own] = KEPT
    return state


def bits(mask: str, units: int) -> NDArray[np.bool_] | None:
    """(units,) bits of a mask; None where it is no number, or one with more bits than units."""
    try:
        number = int(mask, 16)
    except ValueError:
        return None
    if number < 0 or number.bit_length() > units:
        return None
    return np.array([number >> unit & 1 for unit in range(units)], dtype=bool)


def grid_of(units: int, width: int, height: int) -> tuple[int, int] | None:
    """(rows, columns) of an image's units: the two factors that fit its sides best; None where none fits within 30 %.

    A record holds the number of units, not their grid.
    """
    pairs = [(rows, units // rows) for rows in range(1, units + 1) if units % rows == 0]
    rows, columns = min(pairs, key=lambda pair: abs(math.log(pair[1] / pair[0] * height / width)), default=(0, 0))
    fits = rows and abs(math.log(columns / rows * height / width)) < math.log(1.3)
    return (rows, columns) if fits else None


def _depth(site: str) -> tuple[int, int, str]:
    parts = site.split(":")
    order = {"pre-tokenization": 0, "in-vit": 1, "interface": 2, "in-llm": 3}
    layer = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
    return order.get(parts[0], 4), layer, site
