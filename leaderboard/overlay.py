"""An image with the units that a method dropped, drawn over it once for each site."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL.Image import Image
from plotly.subplots import make_subplots

ACROSS = 4  # pictures in a row
SIDE = 290  # pixels of one
DROPPED, KEPT = "rgba(10,12,16,0.78)", "rgba(47,134,207,0.0)"


def overlay(
    image: Image,
    grid: tuple[int, int],
    sites: Mapping[str, NDArray[np.bool_]],
    boxes: Sequence[tuple[float, float, float, float]] = (),
) -> go.Figure:
    """The image as it is, then after each site with what no longer lives darkened. boxes: targets, in pixels."""
    titles = ["the image", *(f"{site}: {int(alive.sum())} of {alive.size}" for site, alive in sites.items())]
    columns = min(ACROSS, len(titles))
    rows = -(-len(titles) // columns)
    figure = make_subplots(rows, columns, subplot_titles=titles, horizontal_spacing=0.02, vertical_spacing=0.16 / rows)
    source, (width, height) = _encoded(image), image.size
    for at in range(len(titles)):
        place = {"row": at // columns + 1, "col": at % columns + 1}
        sizes = {"x": 0, "y": 0, "sizex": width, "sizey": height, "sizing": "stretch", "layer": "below"}
        figure.add_layout_image({"source": source, **sizes}, **place)
        alive = None if at == 0 else list(sites.values())[at - 1]
        figure.add_trace(_units(alive, grid, width, height), **place)
        for x0, y0, x1, y1 in boxes:
            figure.add_shape(type="rect", x0=x0, y0=y0, x1=x1, y1=y1, line={"color": "#ff3b6b", "width": 2.5}, **place)
    figure.update_xaxes(range=[0, width], visible=False, constrain="domain")
    figure.update_yaxes(range=[height, 0], visible=False, scaleratio=1, constrain="domain", constraintoward="top")
    for at in range(1, len(titles) + 1):
        figure.update_yaxes(
            scaleanchor=f"x{at if at > 1 else ''}", row=(at - 1) // columns + 1, col=(at - 1) % columns + 1
        )
    figure.update_layout(
        height=40 + rows * (SIDE + 30), margin={"l": 5, "r": 5, "t": 34, "b": 5},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", showlegend=False,
    )  # fmt: skip
    return figure


def _units(alive: NDArray[np.bool_] | None, grid: tuple[int, int], width: int, height: int) -> go.Heatmap:
    rows, columns = grid
    live = np.ones(rows * columns, dtype=bool) if alive is None else alive
    words = [f"unit {unit}: {'kept' if lives else 'merged or dropped'}" for unit, lives in enumerate(live)]
    return go.Heatmap(
        z=live.reshape(rows, columns).astype(int),
        x0=width / columns / 2,
        dx=width / columns,
        y0=height / rows / 2,
        dy=height / rows,
        zmin=0,
        zmax=1,
        colorscale=[[0, DROPPED], [1, KEPT]],
        showscale=False,
        xgap=1,
        ygap=1,
        text=np.array(words).reshape(rows, columns),
        hoverinfo="text",
    )


def _encoded(image: Image) -> str:
    kept = BytesIO()
    image.convert("RGB").save(kept, format="WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(kept.getvalue()).decode()}"
