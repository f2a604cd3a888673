"""An image with what became of its units drawn over it, once for each site."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL.Image import Image
from plotly.subplots import make_subplots

from harness.records.records import PATCHES
from harness.report.blocks import Markup, tag
from leaderboard.charts import plain_text

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


ACROSS = 4  # pictures in a row
SIDE = 250  # pixels of one
LOOKS = {
    DROPPED: "rgba(10,12,16,0.82)",
    GONE: "rgba(10,12,16,0.66)",
    MERGED: "rgba(224,150,24,0.60)",
    KEPT: "rgba(0,0,0,0)",
}
TARGET = "#ff3b6b"
MERGE_SIGN = "+"
PHOTO = "linear-gradient(135deg,#8fb7d9,#d8cfa8)"  # stands for an image under a swatch


def overlay(
    image: Image,
    grid: tuple[int, int],
    sites: Mapping[str, NDArray[np.int8]],
    boxes: Sequence[tuple[float, float, float, float]] = (),
) -> go.Figure:
    """The image as it is, then after each site with its units in their states. boxes: targets, in pixels."""
    titles = ["the image", *(f"{in_words(site)}<br>{_counted(states)}" for site, states in sites.items())]
    rows = -(-len(titles) // ACROSS)
    figure = make_subplots(rows, ACROSS, subplot_titles=titles, horizontal_spacing=0.02, vertical_spacing=0.16 / rows)
    source, (width, height) = _encoded(image), image.size
    for at in range(len(titles)):
        place = {"row": at // ACROSS + 1, "col": at % ACROSS + 1}
        sizes = {"x": 0, "y": 0, "sizex": width, "sizey": height, "sizing": "stretch", "layer": "below"}
        figure.add_layout_image({"source": source, **sizes}, **place)
        whole = np.full(grid[0] * grid[1], KEPT, dtype=np.int8)
        states = whole if at == 0 else list(sites.values())[at - 1]
        figure.add_trace(_units(states, grid, width, height), **place)
        for x0, y0, x1, y1 in boxes:
            figure.add_shape(type="rect", x0=x0, y0=y0, x1=x1, y1=y1, line={"color": TARGET, "width": 2.5}, **place)
    figure.update_xaxes(range=[0, width], visible=False, constrain="domain")
    figure.update_yaxes(range=[height, 0], visible=False, scaleratio=1, constrain="domain", constraintoward="top")
    for at in range(1, len(titles) + 1):
        figure.update_yaxes(
            scaleanchor=f"x{at if at > 1 else ''}", row=(at - 1) // ACROSS + 1, col=(at - 1) % ACROSS + 1
        )
    figure.update_layout(
        height=44 + rows * (SIDE + 44), margin={"l": 5, "r": 5, "t": 44, "b": 5},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", showlegend=False,
    )  # fmt: skip
    return figure


def key(states: Sequence[int], boxes: bool) -> Markup:
    """The legend of the states that occur, and of the target's box."""
    shown = [tag("span", _swatch(state), WORDS[state], class_="key") for state in sorted(states, reverse=True)]
    frame = tag("i", style=f"border:2px solid {TARGET}", class_="swatch")
    shown += [tag("span", frame, "what the question is about", class_="key")] if boxes else []
    return tag("div", tag("div", *shown, class_="keys"), class_="board")


def in_words(site: str) -> str:
    """Name of a site in words."""
    match site.split(":"):
        case ["pre-tokenization"]:
            return "before the ViT"
        case ["interface"]:
            return "behind the projector"
        case ["in-vit", block]:
            return f"behind block {block} of the ViT"
        case ["in-vit", block, "attention"]:
            return f"in block {block} of the ViT"
        case ["in-llm", layer]:
            return f"before layer {layer} of the LLM"
    return plain_text(site, 40)


def _swatch(state: int) -> Markup:
    return tag(
        "i",
        MERGE_SIGN if state == MERGED else "",
        style=f"background:linear-gradient({LOOKS[state]},{LOOKS[state]}),{PHOTO}",
        class_="swatch",
    )


def _counted(states: NDArray[np.int8]) -> str:
    """Counts of kept and merged units in words."""
    merged = int((states == MERGED).sum())
    return f"{int((states == KEPT).sum())} of {states.size} kept" + (f", {merged} merged" if merged else "")


def _units(states: NDArray[np.int8], grid: tuple[int, int], width: int, height: int) -> go.Heatmap:
    rows, columns = grid
    signs = [MERGE_SIGN if state == MERGED else "" for state in states]
    words = [f"unit {unit}: {WORDS[state]}" for unit, state in enumerate(states)]
    return go.Heatmap(
        z=states.reshape(rows, columns),
        x0=width / columns / 2,
        dx=width / columns,
        y0=height / rows / 2,
        dy=height / rows,
        zmin=DROPPED,
        zmax=KEPT,
        colorscale=[[state / KEPT, colour] for state, colour in LOOKS.items()],
        showscale=False,
        xgap=1,
        ygap=1,
        text=np.array(signs).reshape(rows, columns),
        texttemplate="%{text}",
        textfont={"color": "#ffffff", "size": 12},
        hovertext=np.array(words).reshape(rows, columns),
        hoverinfo="text",
    )


def _encoded(image: Image) -> str:
    kept = BytesIO()
    image.convert("RGB").save(kept, format="WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(kept.getvalue()).decode()}"
