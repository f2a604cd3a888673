"""Which units of an image are alive after each site, from the masks of a record."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

PATCHES = "patches"  # a mask over single patches, not units


def stages(kept: Mapping[str, str], units: int) -> dict[str, NDArray[np.bool_]]:
    """Site -> (units,) alive after it, in the order in which the model comes to them.

    kept: as in a record, site -> hexadecimal, bit i = unit i. Masks that are no numbers are left out.
    """
    found = {site: alive(mask, units) for site, mask in kept.items() if site != PATCHES}
    return {site: found[site] for site in sorted(found, key=_depth) if found[site] is not None}


def alive(mask: str, units: int) -> NDArray[np.bool_] | None:
    """(units,) bits of a mask; None where it is no number, or one with more bits than units."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return None
    if bits < 0 or bits.bit_length() > units:
        return None
    return np.array([bits >> unit & 1 for unit in range(units)], dtype=bool)


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
