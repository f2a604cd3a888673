"""The board's charts as Plotly figures without a theme: text and paper take their colours where they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from harness.latency.break_even import BreakEven
from harness.report.gather import Line
from harness.report.palette import GREY, INK, NO, YES, mark_of

STAGE_COLOURS = {
    "vit": "#3f8fd6",
    "projector": "#c9a02c",
    "select": "#d9622b",
    "llm_prefill": "#2a9d78",
    "residual": "#8b939d",
}
_STAGE_WORDS = {"vit": "ViT", "projector": "projector", "select": "selection", "llm_prefill": "LLM prefill"}
HEIGHT = 460
ABOVE = 6  # so many names fit above a chart; more stand beside it
LEGEND_ROW = 20  # pixels
APART = 0.012  # between neighbours on an axis of logarithms, as a share of x


@dataclass(frozen=True)
class Point:
    """One mark: x with its bounds, y with its bounds, and what it says when pointed at."""

    x: float
    y: float
    y_low: float
    y_high: float
    words: str
    x_low: float | None = None
    x_high: float | None = None
    certainty: float | None = None


@dataclass(frozen=True)
class Curve:
    """The marks of one method, under the name that the legend shows."""

    name: str
    method: str
    points: Sequence[Point]


def plain_text(text: str, longest: int = 200) -> str:
    """Text in which Plotly finds no tags, shortened. Plotly reads a few HTML tags in names and hover texts."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def file_name(text: str) -> str:
    """Text as a part of a file's name."""
    return "".join(sign if sign.isalnum() or sign in "-_" else "-" for sign in text)[:60]


def ra_point(line: Line) -> Point:
    """A run's RA in % against its visual tokens."""
    run = line.run
    value, low, high = (100 * (run[key] if run[key] is not None else run["ra"]) for key in ("ra", "ra_low", "ra_high"))
    words = (
        f"{line.name} {run['budget']}: RA {value:.1f} % [{low:.1f}, {high:.1f}], {run['realised_tokens']:.1f} tokens"
    )
    return Point(run["realised_tokens"], value, low, high, words)


def trade_off(curves: Sequence[Curve], unpruned: float | None, x_title: str, y_title: str, log: bool) -> go.Figure:
    """Value against cost, bars for 95 % intervals, a line where no pruning stands. A ring: on the front in half of
    the draws or more."""
    figure = go.Figure()
    sure = []
    for at, curve in enumerate(curves):
        apart = 1 + APART * (at - (len(curves) - 1) / 2) if log else 1.0
        figure.add_trace(_curve(curve, apart))
        sure += [replace(point, x=point.x * apart) for point in curve.points if (point.certainty or 0) >= 0.5]
    if sure:
        figure.add_trace(_front(sure))
    if unpruned is not None:
        figure.add_hline(
            y=unpruned, line={"dash": "dash", "width": 1.2, "color": INK}, annotation_text="no pruning",
            annotation_position="top left",
        )  # fmt: skip
    _titles(figure, x_title, y_title)
    if len(curves) > ABOVE:
        _legend_beside(figure, len(curves) + bool(sure))
    if log:
        figure.update_xaxes(type="log", dtick=0.30103, tickformat=",.4~g")
    return figure


def _legend_beside(figure: go.Figure, entries: int) -> None:
    """A long legend, to the right of the chart and as high as it."""
    legend = {"orientation": "v", "yanchor": "top", "y": 1, "xanchor": "left", "x": 1.01}
    figure.update_layout(legend=legend, height=max(HEIGHT, 120 + LEGEND_ROW * entries), margin_t=20)


def _curve(curve: Curve, apart: float) -> go.Scatter:
    """apart: factor on x, so that the bars of methods at one budget do not hide each other."""
    mark, points = mark_of(curve.method), sorted(curve.points, key=lambda point: point.x)
    bars = {"type": "data", "symmetric": False, "thickness": 1.4, "width": 3, "color": mark.colour}
    spread = [(point.x_high - point.x, point.x - point.x_low) for point in points if point.x_high and point.x_low]
    return go.Scatter(
        x=[point.x * apart for point in points],
        y=[point.y for point in points],
        name=plain_text(curve.name, 40),
        mode="lines+markers",
        marker={"color": mark.colour, "symbol": mark.symbol, "size": 10, "line": {"width": 1, "color": mark.colour}},
        line={"color": mark.colour, "width": 1.5, "dash": "dot" if mark.control else "solid"},
        opacity=0.75 if mark.control else 1,
        error_y={
            **bars,
            "array": [max(point.y_high - point.y, 0) for point in points],
            "arrayminus": [max(point.y - point.y_low, 0) for point in points],
        },
        error_x={**bars, "array": [up for up, _ in spread], "arrayminus": [down for _, down in spread]}
        if len(spread) == len(points)
        else None,
        hovertext=[plain_text(point.words) for point in points],
        hoverinfo="text",
    )


def _front(points: Sequence[Point]) -> go.Scatter:
    """The step line through the points that are on the front more often than not."""
    stairs = sorted(points, key=lambda point: (point.x, point.y))
    return go.Scatter(
        x=[point.x for point in stairs],
        y=[point.y for point in stairs],
        mode="lines+markers",
        name="on the front (≥ 50 %)",
        line={"shape": "hv", "color": INK, "width": 2.2},
        marker={"symbol": "circle-open", "size": 19, "color": INK, "line": {"width": 2}},
        hoverinfo="skip",
        opacity=0.55,
    )


def add_ceiling(figure: go.Figure, x: float) -> None:
    """A line that no pruner behind the projector can pass."""
    figure.add_vline(
        x=x, line={"dash": "dot", "width": 1.4, "color": NO}, annotation_text="late-pruning ceiling",
        annotation_position="bottom right",
    )  # fmt: skip


def differences(rows: Sequence[tuple[str, float, float, float]], x_title: str) -> go.Figure:
    """Differences with their intervals, one row each: (name, value, low, high). Green above zero, red below."""
    colours = [YES if low > 0 else NO if high < 0 else GREY for _, _, low, high in rows]
    figure = go.Figure(
        go.Scatter(
            x=[value for _, value, _, _ in rows],
            y=[plain_text(name, 50) for name, *_ in rows],
            mode="markers",
            marker={"color": colours, "size": 12},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [high - value for _, value, _, high in rows],
                "arrayminus": [value - low for _, value, low, _ in rows],
                "thickness": 2,
                "color": GREY,
            },
            hovertext=[
                f"{plain_text(name)}: {value:+.1f} [{low:+.1f}, {high:+.1f}]" for name, value, low, high in rows
            ],
            hoverinfo="text",
            showlegend=False,
        )
    )
    figure.add_vline(x=0, line={"color": INK, "width": 1.2})
    _titles(figure, x_title, "")
    figure.update_layout(height=120 + 38 * len(rows))
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def stage_bars(pairs: Sequence[tuple[str, Mapping[str, float], Mapping[str, float]]]) -> go.Figure:
    """Two stacked bars of milliseconds a run, no pruning beside it: (name, unpruned, pruned), stage -> ms."""
    names = [plain_text(name, 40) for name, *_ in pairs]
    arms = ["no pruning", "pruned"] * len(pairs)
    figure = go.Figure()
    for stage, colour in STAGE_COLOURS.items():
        values = [max(arm.get(stage) or 0.0, 0.0) for _, *both in pairs for arm in both]
        if any(values):
            figure.add_trace(
                go.Bar(
                    y=[[name for name in names for _ in range(2)], arms],
                    x=values,
                    orientation="h",
                    name=_STAGE_WORDS.get(stage, stage),
                    marker={"color": colour, "opacity": [0.55, 1.0] * len(pairs)},
                    hovertemplate="%{y}: %{x:.2f} ms<extra>%{fullData.name}</extra>",
                )
            )
    _titles(figure, "prefill, median ms", "")
    figure.update_layout(barmode="stack", height=150 + 62 * len(pairs), bargap=0.25, legend_traceorder="normal")
    figure.update_yaxes(autorange="reversed", automargin=True, dividercolor=GREY, dividerwidth=0.5)
    return figure


def break_even(found: Sequence[tuple[str, str, Sequence[BreakEven]]]) -> go.Figure:
    """Time saved against time of the selection, a mark for each timed shape; on the diagonal they are equal.

    found: (name, method, shapes) of each run.
    """
    figure = go.Figure()
    longest = max([max(one.select_ms, one.saved_ms) for *_, shapes in found for one in shapes], default=1.0) * 1.05
    figure.add_trace(
        go.Scatter(
            x=[0, longest], y=[0, longest], mode="lines", name="break-even", hoverinfo="skip",
            line={"color": INK, "dash": "dash", "width": 1.2}, fill="tozeroy", fillcolor="rgba(212,85,58,0.10)",
        )
    )  # fmt: skip
    for name, method, shapes in found:
        mark = mark_of(method)
        figure.add_trace(
            go.Scatter(
                x=[one.select_ms for one in shapes],
                y=[one.saved_ms for one in shapes],
                name=plain_text(name, 40),
                mode="markers",
                marker={"color": mark.colour, "symbol": mark.symbol, "size": 11},
                hovertext=[plain_text(_break_even_words(name, one)) for one in shapes],
                hoverinfo="text",
            )
        )
    _titles(figure, "selection takes, median ms", "saved in ViT and LLM, median ms")
    if len(found) > ABOVE:
        _legend_beside(figure, len(found))
    return figure


def _break_even_words(name: str, one: BreakEven) -> str:
    verdict = "pays" if one.pays else "does not pay"
    return f"{name}, {one.n} tokens ({one.shape_key}): {verdict}, {one.select_ms:.2f} ms for {one.saved_ms:.2f} ms"


def _titles(figure: go.Figure, x_title: str, y_title: str) -> None:
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 60, "r": 20, "t": 36, "b": 56},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
    )
    grid = {"gridcolor": "rgba(128,136,147,0.22)", "zeroline": False}
    figure.update_xaxes(title_text=x_title, **grid)
    figure.update_yaxes(title_text=y_title, **grid)
