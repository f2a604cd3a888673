"""The per-sample rows of a submission: records as one flat table, and back.

run_id, sample_id       which run answered which question; rows are sorted by sample id, then by run id
position                place of the question in its benchmark, 0 first: the ids in this order give `sample_ids`
cluster, category       as in the store; the answer that would have been right is the benchmark's, not the row's
prediction, score       the model's words; in [0, 1]
full_tokens, asked_tokens, entering_tokens
                        visual tokens: unpruned, asked (NULL in native mode), entering each LLM layer: "64*3 20*13"
recall_of_target, error as in the store
prefill_flops, llm_prefill_flops, prefill_2ndm_flops
                        FLOPs of the prefill, of its LLM part, and by the papers' formula; NULL where not counted
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from harness.records.records import Record

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {  # column -> type in the file
    "run_id": "VARCHAR",
    "sample_id": "VARCHAR",
    "position": "INTEGER",
    "cluster": "VARCHAR",
    "category": "VARCHAR",
    "prediction": "VARCHAR",
    "score": "DOUBLE",
    "full_tokens": "INTEGER",
    "asked_tokens": "INTEGER",
    "entering_tokens": "VARCHAR",
    "recall_of_target": "DOUBLE",
    "error": "VARCHAR",
    "prefill_flops": "BIGINT",
    "llm_prefill_flops": "BIGINT",
    "prefill_2ndm_flops": "BIGINT",
}
NULLABLE = ("asked_tokens", "recall_of_target", "error", "prefill_flops", "llm_prefill_flops", "prefill_2ndm_flops")
MAX_LAYERS = 1024
_STAGES = {"prefill_flops": "total", "llm_prefill_flops": "llm", "prefill_2ndm_flops": "paper_2ndm"}
_NUMPY = {"VARCHAR": "object", "DOUBLE": "Float64", "INTEGER": "Int64", "BIGINT": "Int64"}


def rows_of(run_id: str, records: Iterable[Record]) -> list[dict[str, Any]]:
    """The rows of one run's records, which come in the benchmark's order; sorted by sample id."""
    rows = [
        {
            "run_id": run_id,
            "sample_id": record.sample_id,
            "position": position,
            "cluster": record.cluster,
            "category": record.category,
            "prediction": record.prediction,
            "score": float(record.score),
            "full_tokens": record.full_tokens,
            "asked_tokens": record.asked_tokens,
            "entering_tokens": spell_counts(record.entering),
            "recall_of_target": record.recall_of_target,
            "error": record.error,
            **{column: record.flops.get(stage) for column, stage in _STAGES.items()},
        }
        for position, record in enumerate(records)
    ]
    return sorted(rows, key=lambda row: row["sample_id"])


def records_of(rows: Iterable[dict[str, Any]]) -> list[Record]:
    """The records behind one run's rows, in the benchmark's order; answer, kept masks and seconds are not in them.

    Raises ValueError where `entering_tokens` cannot be read.
    """
    return [
        Record(
            sample_id=row["sample_id"],
            cluster=row["cluster"],
            category=row["category"],
            answer="",
            prediction=row["prediction"],
            score=row["score"],
            full_tokens=row["full_tokens"],
            asked_tokens=row["asked_tokens"],
            entering=read_counts(row["entering_tokens"]),
            recall_of_target=row["recall_of_target"],
            error=row["error"],
            flops={stage: row[column] for column, stage in _STAGES.items() if row[column] is not None},
        )
        for row in sorted(rows, key=lambda row: row["position"])
    ]


def rows_hash(rows: Iterable[dict[str, Any]]) -> str:
    """sha256 over one run's rows without their run id, by sample id: whatever file they lie in, the same hash."""
    total = hashlib.sha256()
    names = [name for name in COLUMNS if name != "run_id"]
    for row in sorted(rows, key=lambda row: row["sample_id"]):
        total.update(repr([row[name] for name in names]).encode())
    return total.hexdigest()


def frame_of(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows of several runs as the table that is written, sorted by sample id, then by run id."""
    import pandas as pd

    ordered = sorted(rows, key=lambda row: (row["sample_id"], row["run_id"]))
    columns = {name: [row[name] for row in ordered] for name in COLUMNS}
    return pd.DataFrame({name: pd.Series(columns[name], dtype=_NUMPY[kind]) for name, kind in COLUMNS.items()})


def spell_counts(entering: Sequence[int]) -> str:
    """Tokens by layer, runs of equal ones joined: (64, 64, 20) -> "64*2 20"."""
    groups = [(value, len(list(same))) for value, same in groupby(entering)]
    return " ".join(f"{value}*{count}" if count > 1 else str(value) for value, count in groups)


@lru_cache(maxsize=2**16)
def read_counts(words: str) -> tuple[int, ...]:
    """What `spell_counts` spelled. Raises ValueError."""
    counts: list[int] = []
    for word in words.split():
        value, _, times = word.partition("*")
        if not (value.isascii() and value.isdigit() and (not times or (times.isascii() and times.isdigit()))):
            raise ValueError(f"expected tokens by layer such as '64*3 20*13', got {words[:40]!r}")
        repeat = int(times or 1)
        if len(counts) + repeat > MAX_LAYERS or len(value) > 9:
            raise ValueError(f"expected at most {MAX_LAYERS} layers of less than 10^9 tokens, got {words[:40]!r}")
        counts += [int(value)] * repeat
    return tuple(counts)
