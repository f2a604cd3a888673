"""Metrics over the answers of a run: means, F1, and those that judge several rows together.

Under --limit the last group may be incomplete; it is judged by the rows that are there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean

from harness.benchmarks.scoring.rule import Scored
from harness.benchmarks.scoring.yes_no import YES
from harness.records.records import Sample

Aggregate = Callable[[Sequence[Scored]], float]
NOTHING = float("nan")


def mean(rows: Sequence[Scored]) -> float:
    """Mean score; an unread answer scores 0. Not a number without rows."""
    return fmean(row.score or 0.0 for row in rows) if rows else NOTHING


def unparsed(rows: Sequence[Scored]) -> float:
    """Share of the rows whose answer could not be read."""
    return fmean(row.score is None for row in rows) if rows else NOTHING


def where(keep: Callable[[Sample], bool], aggregate: Aggregate = mean) -> Aggregate:
    """A metric over the rows whose sample passes."""
    return lambda rows: aggregate([row for row in rows if keep(row.sample)])


def mean_of_categories(rows: Sequence[Scored]) -> float:
    """Mean over categories of their mean score, whatever their sizes."""
    return fmean(map(mean, _by(rows, lambda row: row.sample.category))) if rows else NOTHING


def all_right(group: str) -> Aggregate:
    """Share of the groups of that label in which every row is right."""

    def aggregate(rows: Sequence[Scored]) -> float:
        found = _by(rows, lambda row: row.sample.groups[group])
        return fmean(all(row.right for row in one) for one in found) if rows else NOTHING

    return aggregate


def precision(rows: Sequence[Scored]) -> float:
    """Share of the answers "yes" that are right; 0 without any."""
    said = [row for row in rows if _said_yes(row)]
    return fmean(row.right for row in said) if said else 0.0


def recall(rows: Sequence[Scored]) -> float:
    """Share of the questions with the answer "yes" that got it; an unread answer is a miss."""
    expected = [row for row in rows if _expects_yes(row)]
    return fmean(row.right for row in expected) if expected else 0.0


def f1(rows: Sequence[Scored]) -> float:
    """Harmonic mean of precision and recall of "yes"."""
    p, r = precision(rows), recall(rows)
    return 2 * p * r / (p + r) if p + r else 0.0


def mme_points(categories: frozenset[str]) -> Aggregate:
    """Sum over the categories of 100 x (share of right answers + share of images with both right). Source: MME."""

    def aggregate(rows: Sequence[Scored]) -> float:
        found = _by([row for row in rows if row.sample.category in categories], lambda row: row.sample.category)
        return 100 * sum(mean(one) + all_right("pair")(one) for one in found) if found else NOTHING

    return aggregate


def mean_of(*aggregates: Aggregate) -> Aggregate:
    """The mean of several metrics."""
    return lambda rows: fmean(aggregate(rows) for aggregate in aggregates)


def answers_with(word: str) -> Aggregate:
    """Share of the predictions that are that word, case and a final period ignored."""
    return lambda rows: fmean(row.prediction.strip().lower().rstrip(".") == word for row in rows) if rows else NOTHING


def _expects_yes(row: Scored) -> bool:
    return row.sample.answer.lower() == YES


def _said_yes(row: Scored) -> bool:
    return row.score is not None and row.right == _expects_yes(row)


def _by(rows: Sequence[Scored], key: Callable[[Scored], str]) -> list[list[Scored]]:
    groups: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return list(groups.values())
