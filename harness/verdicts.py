"""Does a method beat random? Every run of it in a store beside the random runs of the same cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.stats import paired_difference

if TYPE_CHECKING:
    import pandas as pd

    from harness.store.database import Store

_PAIRS = """
SELECT own.run_id, own.sample_id, any_value(own.cluster) AS cluster, any_value(own.score) AS score,
       avg(other.score) AS random_score
FROM samples own
JOIN runs mine ON mine.run_id = own.run_id
JOIN runs chance ON chance.method = 'random' AND chance.status = 'ok' AND chance.model_revision = mine.model_revision
 AND chance.benchmark_revision = mine.benchmark_revision AND chance.budget = mine.budget
 AND chance.sample_ids = mine.sample_ids AND chance.dtype = mine.dtype
JOIN samples other ON other.run_id = chance.run_id AND other.sample_id = own.sample_id
WHERE mine.method = ? AND mine.method <> 'random' AND mine.status = 'ok'
GROUP BY own.run_id, own.sample_id ORDER BY own.run_id, own.sample_id
"""


def verdicts(store: Store, method: str) -> list[dict[str, Any]]:
    """One row a run of `method` that has random runs beside it; these are averaged over their seeds, sample by sample.

    over_random, low, high: accuracy minus random's, paired, 95 %, a share; verdict: "yes" | "no" | "not
    distinguishable"; select_ms: the median of what the selection took, None where the run was not timed.
    """
    pairs = store.query(_PAIRS, [method])
    runs = store.runs().set_index("run_id")
    return [_verdict(run_id, runs.loc[run_id], rows) for run_id, rows in pairs.groupby("run_id", sort=False)]


def _verdict(run_id: str, run: pd.Series, rows: pd.DataFrame) -> dict[str, Any]:
    over = paired_difference(rows["score"], rows["random_score"], rows["cluster"])
    timed = run["pruned_ms"] if isinstance(run["pruned_ms"], dict) else {}
    return {
        "run_id": run_id,
        "model": run["model"],
        "benchmark": run["benchmark"],
        "budget": run["budget"],
        "accuracy": run["accuracy"],
        "over_random": over.value,
        "low": over.low,
        "high": over.high,
        "verdict": "yes" if over.low > 0 else "no" if over.high < 0 else "not distinguishable",
        "select_ms": timed.get("select"),
    }
