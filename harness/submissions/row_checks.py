"""The rows of one submitted run by themselves: whether they are those of its document, and each within its bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.submissions.rows import read_counts, rows_hash

Document = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]
PRIVATE = re.compile(
    r"/home/|/root/|/Users/|[A-Z]:\\|\b(?:hf_|gh[pousr]_|sk-)[A-Za-z0-9]{20}"
)  # folders of people, keys


def row_problems(document: Document, rows: Rows) -> Iterator[str]:
    """What is wrong with the rows of a run by themselves; figures make sense only if nothing is."""
    stated = document["samples"]
    ids = [row["sample_id"] for row in rows]
    if len(set(ids)) != len(ids):
        yield f"{len(ids) - len(set(ids))} of its sample ids stand twice"
    if not len(ids) == stated["n"] == document["figures"]["n"]:
        yield f"it has {len(ids)} rows, its document says {stated['n']} (figures: {document['figures']['n']})"
    if sorted(row["position"] for row in rows) != list(range(len(rows))):
        yield "the positions of its rows are not 0, 1, 2 and so on"
    wrong = [(row["sample_id"], words) for row in rows for words in _row_faults(row)]
    if wrong:
        yield f"{len(wrong)} rows are out of bounds, e.g. {wrong[0][0][:60]!r}: {wrong[0][1]}"
    if rows_hash(rows) != stated["sha256"]:
        yield "its rows are not those that its document was made for: samples.sha256 differs"


def _row_faults(row: Mapping[str, Any]) -> Iterator[str]:
    failed = row["error"] is not None
    score, recall, full, asked = (row[key] for key in ("score", "recall_of_target", "full_tokens", "asked_tokens"))
    flops = [row[key] for key in ("prefill_flops", "llm_prefill_flops", "prefill_2ndm_flops")]
    if not 0 <= score <= 1 or (failed and score):
        yield f"score {score}"
    if recall is not None and not 0 <= recall <= 1:
        yield f"recall_of_target {recall}"
    if len({value is None for value in flops}) > 1 or any(value is not None and value <= 0 for value in flops):
        yield f"FLOPs {flops}"
    if failed and PRIVATE.search(row["error"]):
        yield "an error that names a private path"
    if full < 0 or (asked is not None and not 1 <= asked <= full):
        yield f"asked_tokens {asked} of {full}"
    try:
        entering = read_counts(row["entering_tokens"])
    except ValueError as problem:
        yield str(problem)
        return
    if any(value > full for value in entering) or bool(entering) == failed:
        yield f"entering_tokens {row['entering_tokens'][:40]!r} of {full}, error {failed}"
