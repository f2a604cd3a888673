"""What a method is worth on the questions that a smaller image cannot answer.

Most questions of most benchmarks survive a picture of a quarter of its pixels; there every pruner looks good. The hard
ones are those that the model gets right in full and wrong on the image downsampled by a named factor.

The selection decides two figures: by construction the full model scores 100 % on them and that downsampling 0 %. Part
of what was chosen is luck (an answer right in full by a guess, wrong when shrunk by another), and falls back towards
its mean in any third run. So compare methods with one another and with random choice on the same questions, never with
100 % or 0 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.records.records import Record
from harness.stats import Interval, accuracy_interval

RIGHT = 0.5  # soft scores count as right from here
NOTE = (
    "on hard samples the full model scores 100 % and that downsampling 0 % by selection; compare methods with one "
    "another and with random on the same samples"
)
Records = Mapping[str, Record]  # sample id -> its record


@dataclass(frozen=True)
class Hard:
    """One judgement. factor: by which the sides were divided. n of all: how many samples are hard.

    accuracy, random: on those, with 95 % intervals; None where there is none, or no random run.
    """

    factor: int
    n: int
    all: int
    accuracy: Interval | None
    random: Interval | None


def hard_ids(full: Records, small: Records) -> list[str]:
    """The samples that the full run gets right and the downsampled one wrong, in order. Error rows are neither."""
    return [
        name
        for name, record in full.items()
        if record.score >= RIGHT and small[name].score < RIGHT and small[name].error is None
    ]


def judge(factor: int, full: Records, small: Records, own: Records, random: Records | None) -> Hard:
    """A method on the hard samples of one factor. small: the run of `downsample` at 1 / factor² of the tokens."""
    ids = hard_ids(full, small)
    return Hard(factor, len(ids), len(full), _accuracy(own, ids), _accuracy(random, ids))


def _accuracy(records: Records | None, ids: list[str]) -> Interval | None:
    if records is None or not ids:
        return None
    chosen = [records[name] for name in ids]
    return accuracy_interval([record.score for record in chosen], [record.cluster for record in chosen])
