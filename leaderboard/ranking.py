"""The ranking table: the one thing to look at. Marks, bars with intervals, verdicts; all text escaped."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.gather import FULL, Line
from harness.report.markup import Markup, tag
from harness.store.lookup import Row
from harness.submissions import SELF_REPORTED, VERIFIED
from leaderboard.palette import Mark, mark_of
from leaderboard.sources import LOCAL

_GLYPHS = {
    **{"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "cross": "✚", "star": "★", "hexagon": "⬢"},
    **{"x": "✕", "square-open": "□", "diamond-open": "◇", "circle-open": "○", "line-ew": "–"},
}


def symbol(mark: Mark) -> Markup:
    """A method's mark as a letter in its colour: the server lets no drawing through."""
    return tag("span", _GLYPHS[mark.symbol], style=f"color:{mark.colour}", class_="mark")


def ranking(lines: Sequence[Line], full: Line | None) -> Markup:
    """The runs at one budget, best first, no pruning above them; those tied with the best are tinted."""
    shown = sorted(lines, key=lambda line: -(line.run["ra"] if line.run["ra"] is not None else -1.0))
    rows = ([full] if full else []) + shown
    values = [100 * value for line in rows for value in _bounds(line, "ra") if value is not None]
    scale = (min(values, default=0.0) - 1, max(values, default=100.0) + 1)
    timed = any(line.run["lr"] is not None for line in shown)
    head = [
        "rank",
        "method",
        "RA with its interval; dashed: no pruning",
        "RA, %",
        "accuracy, %",
        "beats random",
        "tokens a layer",
    ]
    told = any(line.run["provenance"] != LOCAL for line in rows)
    head += ["prefill FLOPs / unpruned", *(["LR, % of prefill time saved"] if timed else [])]
    words = {1, 2, 5, *([len(head)] if told else [])}  # columns
    head += ["provenance"] if told else []
    top = tag("tr", *(tag("th", name, **_words(at in words)) for at, name in enumerate(head)))
    body = [_row(line, scale, timed, told) for line in rows]
    return tag("div", tag("div", tag("table", tag("thead", top), tag("tbody", *body)), class_="wide"), class_="board")


def _row(line: Line, scale: tuple[float, float], timed: bool, told: bool) -> Markup:
    run, mark = line.run, mark_of(line.run["method"])
    cells = [
        tag("td", *_rank(line)),
        tag("td", symbol(mark), " ", tag("span", line.name), class_="words name"),
        tag("td", _bar(line, scale, mark), class_="words"),
        tag("td", *_value(line, "ra")),
        tag("td", *_value(line, "accuracy")),
        tag("td", _verdict(line), class_="words"),
        tag("td", _number(run["realised_tokens"], ".1f")),
        tag("td", _number(run["flops_ratio"], ".3f")),
    ]
    if timed:
        cells.append(tag("td", *_value(line, "lr"), _indicative(line)))
    if told:
        cells.append(tag("td", _provenance(run), class_="words"))
    return tag("tr", *cells, class_=_kind(line, mark))


def _provenance(run: Row) -> Markup:
    """Who vouches for a run; pointed at, the batch that it came in."""
    kind = {VERIFIED: "yes", SELF_REPORTED: "unclear"}.get(run["provenance"], "plain")
    title = {"title": f"batch {run['batch']}"} if run["batch"] else {}
    return tag("span", run["provenance"], class_=f"pill {kind}", **title)


def _kind(line: Line, mark: Mark) -> str:
    classes = ["control"] if mark.control else []
    if line.rank and line.rank[1] == 1 and not mark.control:
        classes.append("tied")
    return " ".join(classes)


def _rank(line: Line) -> list[object]:
    if line.rank is None:
        return ["–"]
    place, low, high = line.rank
    return [
        tag("span", str(place), class_="rank"),
        tag("span", f"{low}–{high}" if low != high else "", class_="bounds"),
    ]


def _bar(line: Line, scale: tuple[float, float], mark: Mark) -> Markup | None:
    value, low, high = _bounds(line, "ra")
    if value is None:
        return None
    low, high = (value if low is None else low), (value if high is None else high)

    def at(share: float) -> float:
        return round((100 * share - scale[0]) / (scale[1] - scale[0]) * 100, 1)

    full = tag("i", style=f"left:{at(1)}%", class_="full")
    span = f"left:{at(low)}%;width:{round(at(high) - at(low), 1)}%;background:{mark.colour}"
    dot = tag("i", style=f"left:{at(value)}%;background:{mark.colour}", class_="dot")
    return tag("div", full, tag("i", style=span, class_="span"), dot, class_="track")


def _bounds(line: Line, name: str) -> tuple[float | None, float | None, float | None]:
    return line.run[name], line.run.get(f"{name}_low"), line.run.get(f"{name}_high")


def _value(line: Line, name: str) -> list[object]:
    value, low, high = _bounds(line, name)
    if value is None:
        return ["–"]
    interval = f"[{low * 100:.1f}, {high * 100:.1f}]" if low is not None and high is not None and low < high else ""
    return [f"{value * 100:.1f}", tag("span", interval, class_="bounds")]


def _verdict(line: Line) -> Markup:
    words = line.beats_random
    kind = {"yes": "yes", "no, worse": "no"}.get(words, "unclear")
    return tag("span", words, class_=f"pill {kind}") if words != "–" else tag("span", "–", class_="unclear")


def _indicative(line: Line) -> Markup | None:
    because = line.run.get("indicative_because") or "not publishable"
    return tag("span", "†", title=because) if line.run["indicative"] else None


def _number(value: float | None, style: str) -> str:
    return "–" if value is None else format(value, style)


def _words(is_words: bool) -> dict[str, str]:
    return {"class_": "words"} if is_words else {}


def budgets_of(lines: Sequence[Line]) -> list[str]:
    """The budgets at which runs can be compared, those with most tokens first."""
    found: dict[str, float] = {}
    for line in lines:
        if line.run["method"] != FULL and line.run["budget_kind"] != "native" and line.run["status"] == "ok":
            found[line.run["budget"]] = max(found.get(line.run["budget"], 0.0), line.run["realised_tokens"] or 0.0)
    return sorted(found, key=lambda budget: -found[budget])


def middle_of(budgets: Sequence[str]) -> str | None:
    """The budget to begin with: neither so many tokens that all methods are alike, nor so few that all fail."""
    return budgets[(len(budgets) - 1) // 2] if budgets else None
