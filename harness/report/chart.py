"""Charts as inline SVG: accuracy against cost with error bars, and where the time of a prefill goes.

Colours are CSS variables of the page (light and dark); every mark says its numbers when pointed at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.report.markup import Markup, join, tag

WIDTH, HEIGHT = 560, 400
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 46
PAIR = 36  # height of a pair of bars
COLOURS = 8  # --c0 ... --c7 of the style sheet
_SHAPES = ("circle", "square", "diamond", "triangle", "cross")


@dataclass(frozen=True)
class Point:
    """One mark, with an interval of y. words: what it says when pointed at."""

    x: float
    y: float
    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Series:
    """The marks of one method. number: its colour and shape, the same in all charts; None: a control, in grey."""

    name: str
    number: int | None
    points: Sequence[Point]


@dataclass(frozen=True)
class _Scale:
    """Data to pixels. doubling: each doubling of a value takes the same room."""

    low: float
    high: float
    start: float
    end: float
    doubling: bool = False

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float, doubling: bool = False) -> _Scale:
        """The scale that holds the values with a little room on either side."""
        low, high = (min(values), max(values)) if not doubling else (math.log2(min(values)), math.log2(max(values)))
        room = (high - low) * 0.06 or max(abs(high) * 0.1, 1e-6)
        return cls(low - room, high + room, start, end, doubling)

    def __call__(self, value: float) -> float:
        at = math.log2(value) if self.doubling else value
        return self.start + (at - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Four to seven round values, or the powers of two."""
        if self.doubling:
            return [2.0**n for n in range(math.ceil(self.low), math.floor(self.high) + 1)]
        rough = (self.high - self.low) / 7
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [round(n * step, 10) for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def trade_off(series: Sequence[Series], unpruned: Point, x_title: str, y_title: str, doubling: bool = False) -> Markup:
    """Accuracy against cost, with a line across at no pruning's height. doubling: x > 0 by its logarithm, methods at
    one budget a little apart, so that their bars do not hide each other."""
    points = [unpruned, *(point for one in series for point in one.points)]
    x = _Scale.around([point.x for point in points], LEFT, WIDTH - RIGHT, doubling)
    y = _Scale.around([bound for point in points for bound in (point.low, point.high)], HEIGHT - BOTTOM, TOP)
    apart = min(6.0, 50 / len(series)) if series and doubling else 0.0  # pixels
    return _svg(
        f"{y_title} against {x_title}",
        _axes(x, y, x_title, y_title),
        _across(x, y, unpruned),
        *(_drawn(one, x, y, (at - (len(series) - 1) / 2) * apart) for at, one in enumerate(series)),
    )


def legend(series: Sequence[Series]) -> Markup:
    """Marks and names, in rows."""
    rows = [
        tag("li", tag("svg", _mark(one.number, 8, 8), viewBox="0 0 16 16", width=16, height=16), one.name)
        for one in series
    ]
    return tag("ul", *rows, class_="legend")


def stage_bars(pairs: Sequence[tuple[str, Mapping[str, float], Mapping[str, float]]], stages: Sequence[str]) -> Markup:
    """Two stacked bars of milliseconds a run: no pruning beside it, and the run itself.

    pairs: (label, unpruned, pruned), stage -> ms; a negative part (a residual) is not drawn.
    """
    height, longest = (
        TOP + PAIR * len(pairs) + BOTTOM,
        max(sum(max(arm.get(stage, 0), 0) for stage in stages) for _, *arms in pairs for arm in arms),
    )
    x = _Scale(0, longest * 1.02 or 1, 150, 2 * WIDTH - RIGHT)
    parts: list[Markup] = []
    for tick in x.ticks():
        parts.append(tag("line", x1=x(tick), x2=x(tick), y1=TOP, y2=height - BOTTOM, class_="grid"))
        parts.append(_text(x(tick), height - BOTTOM + 16, _spelled(tick), "middle"))
    parts.append(_text(75 + WIDTH, height - 8, "prefill, median ms (above: no pruning)", "middle", "title"))
    for at, (label, unpruned, pruned) in enumerate(pairs):
        y = TOP + PAIR * at
        parts.append(_text(142, y + 20, label if len(label) <= 24 else label[:23] + "…", "end"))
        parts.append(_bar(x, y, f"no pruning beside {label}", unpruned, stages, "faint"))
        parts.append(_bar(x, y + 13, label, pruned, stages, "arm"))
    return _svg("Prefill time by stage", *parts, width=2 * WIDTH, height=height)


def _bar(x: _Scale, y: float, label: str, ms: Mapping[str, float], stages: Sequence[str], kind: str) -> Markup:
    parts, done = [], 0.0
    for number, stage in enumerate(stages):
        value = max(ms.get(stage, 0), 0)
        words = tag("title", f"{label}: {stage} {ms.get(stage, 0):.2f} ms")
        place = {"x": round(x(done), 2), "width": round(x(done + value) - x(done), 2), "y": y, "height": 12}
        parts.append(tag("rect", words, **place, class_=f"s{number}"))
        done += value
    return tag("g", *parts, class_=kind)


def _axes(x: _Scale, y: _Scale, x_title: str, y_title: str) -> Markup:
    parts: list[Markup] = []
    for tick in y.ticks():
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=round(y(tick), 2), y2=round(y(tick), 2), class_="grid"))
        parts.append(_text(LEFT - 6, y(tick) + 4, _spelled(tick), "end"))
    for tick in x.ticks():
        parts.append(_text(x(tick), HEIGHT - BOTTOM + 17, _spelled(tick), "middle"))
    parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="axis"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_title, "middle", "title"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(tag("g", _text(0, 0, y_title, "middle", "title"), transform=f"translate(13 {middle}) rotate(-90)"))
    return join(*parts)


def _across(x: _Scale, y: _Scale, unpruned: Point) -> Markup:
    height = round(y(unpruned.y), 2)
    line = tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=height, y2=height, class_="reference")
    return join(
        line, _text(LEFT + 6, height - 6, "unpruned", "start"), _marked(unpruned, x(unpruned.x), y, "ink", None)
    )


def _drawn(series: Series, x: _Scale, y: _Scale, shift: float) -> Markup:
    at = [(round(x(point.x) + shift, 2), point) for point in sorted(series.points, key=lambda point: point.x)]
    path = " ".join(f"{px},{y(point.y):.2f}" for px, point in at)
    colour = _colour(series.number)
    parts = [tag("polyline", points=path, class_=f"curve {colour}")]
    parts += [_marked(point, px, y, colour, series.number) for px, point in at]
    return join(*parts)


def _marked(point: Point, x: float, y: _Scale, colour: str, number: int | None) -> Markup:
    ends = {"x1": round(x, 2), "x2": round(x, 2), "y1": round(y(point.low), 2), "y2": round(y(point.high), 2)}
    bar = tag("line", **ends, class_=f"bar {colour}")
    return tag("g", tag("title", point.words), bar, _mark(number, x, y(point.y), colour=colour))


def _mark(number: int | None, x: float, y: float, r: float = 4.5, colour: str = "") -> Markup:
    shape = "circle" if number is None else _SHAPES[(number + number // COLOURS) % len(_SHAPES)]
    kind = f"mark {colour or _colour(number)}"
    if shape == "circle":
        return tag("circle", cx=f"{x:.2f}", cy=f"{y:.2f}", r=r, class_=kind)
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        "triangle": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
        "cross": [
            *[(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)],
            *[(0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)],
        ],
    }[shape]
    return tag("polygon", points=" ".join(f"{x + r * dx:.2f},{y + r * dy:.2f}" for dx, dy in corners), class_=kind)


def _colour(number: int | None) -> str:
    return "grey" if number is None else f"c{number % COLOURS}"


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> Markup:
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)


def _spelled(value: float) -> str:
    return f"{value:.10g}"


def _svg(label: str, *parts: Markup, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)
