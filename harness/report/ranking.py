"""The ranking at one budget: the answer in a sentence, a table with marks, bars and verdicts, and how to read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.records.figures import (
    ERROR,
    FAILED_BUDGET,
    INFEASIBLE,
    LOCAL,
    PARTIAL,
    REPORTED,
    SELF_REPORTED,
    UNSUPPORTED,
    VERIFIED,
)
from harness.report.blocks import Block, Heading, Html, Markup, Paragraph, Table, tag
from harness.report.gather import Group, Line
from harness.report.palette import Mark, mark_of, symbol
from harness.store.lookup import Row, name_of

HOW = (
    "RA is accuracy over that of the model without pruning, on the same questions; brackets and bars are 95 % "
    "intervals, clustered by image. Tinted rows are tied with the best: in 95 % of resampled sets of images they reach "
    "rank 1. Beats random: McNemar's test against random choice at the same budget, corrected by Holm for all methods."
)
SENT = (
    "Self-reported: submitted by whoever ran it, checked for what its files can show, repeated by nobody yet. Ranked "
    "among themselves only, never with what was run here or verified."
)

STATUS_WORDS = {
    FAILED_BUDGET: "failed its budget",
    INFEASIBLE: "cannot reach the budget",
    UNSUPPORTED: "needs what the model cannot give",
    ERROR: "could not go on",
    PARTIAL: "was stopped; the same command continues it",
    REPORTED: "is what another tool reports, at a budget that nobody measured",
}


def ranked_blocks(group: Group, budget: str, how: str = HOW) -> Iterator[Block]:
    """The ranking of a group at one of its budgets. how: the words that say how to read it."""
    lines = group.at(budget)
    if lines[0].run["provenance"] == SELF_REPORTED:
        yield Paragraph(SENT, "note")
    yield Paragraph(answer(lines), "lead")
    yield Html(ranking(lines, group.full))
    indicative = " † Indicative: not a publishable time." if any(line.run["indicative"] for line in lines) else ""
    yield Paragraph(f"{group.images} images. {how}{indicative}", "soft")


def unranked_blocks(group: Group, reported: Sequence[Row]) -> Iterator[Block]:
    """Everything that is not ranked: own budgets, other tools' figures (`reported`), and runs without a result."""
    native = [line for line in group.lines if line.run["budget_kind"] == "native" and line.ranked]
    if native:
        yield Heading("At their own budgets (not comparable line by line)", 3)
        rows = [(line.name, line.run["realised_tokens"], _percent(line.run["ra"]), line.run["flops_ratio"])
                for line in native]  # fmt: skip
        yield Table(("method", "tokens a layer", "RA, %", "prefill FLOPs / unpruned"), rows, "own-budgets")
    if reported:
        yield Heading("Self-reported: by other tools, at budgets that nobody measured here (never ranked)", 3)
        rows = [(run["method"], run["model"], run["benchmark"], run["n"], _percent(run["accuracy"]))
                for run in reported]  # fmt: skip
        yield Table(("tool", "model", "benchmark", "questions", "accuracy, %"), rows, "self-reported")
    missing = [run for run in group.failures if run["status"] != REPORTED]
    if missing:
        yield Heading("Without a ranked result", 3)
        rows = [(name_of(run), STATUS_WORDS[run["status"]], run["message"]) for run in missing]
        yield Table(("run", "state", "why"), rows, "failures")


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 1)


def answer(lines: Sequence[Line]) -> str:
    """The result in one sentence."""
    ours = [line for line in lines if not mark_of(line.run["method"]).control and line.run["ra"] is not None]
    if not ours:
        return "Only controls have run at this budget."
    best = max(ours, key=lambda line: line.run["ra"])
    tied = [line.name for line in ours if line is not best and line.rank and line.rank[1] == 1]
    words = f"Best at {best.run['budget']}: {best.name}, RA {best.run['ra'] * 100:.1f} %"
    words += f", not told apart from {', '.join(tied)}" if tied else ", ahead of every other method"
    controls = [line for line in lines if mark_of(line.run["method"]).control and line.run["ra"] is not None]
    ahead = [line.name for line in controls if line.run["ra"] > best.run["ra"]]
    return words + (f". Yet these controls do better: {', '.join(ahead)}." if ahead else ".")


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
    """Provenance of a run; pointed at, the batch that it came in."""
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
