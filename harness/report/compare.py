"""Two runs of a store, question by question: B against A, whatever each is.

`document` is the JSON of `harness compare --json`; its keys are a promise, so add and never rename.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.records.errors import UnknownRun, UsageError
from harness.records.figures import FAILED_BUDGET, OK, REPORTED
from harness.stats import (
    Flips,
    Interval,
    flips,
    loyalty,
    mcnemar,
    minimum_detectable_effect,
    paired_difference,
    ra_interval,
)
from harness.store.lookup import Row, name_of, named, rows_of

if TYPE_CHECKING:
    import pandas as pd

    from harness.store.database import Store

_SAMPLES = ("benchmark", "benchmark_revision", "sample_ids")  # what two runs must share
_CONDITIONS = (
    *("model", "model_revision", "dtype", "attention", "image_backend", "device", "machine_id", "protocol", "seed"),
)
_SHOWN = (
    *("run_id", "method", "preset", "settings", "budget", "seed", "status", "accuracy", "accuracy_low"),
    *("accuracy_high", "ra", "realised_tokens", "flops_ratio", "lr", "lr_low", "lr_high", "indicative"),
)


@dataclass(frozen=True)
class Versus:
    """B against A on the same samples. a, b: their rows of the store's `runs`.

    difference: accuracy of B minus A's; p: of McNemar's test by image; ra: B's accuracy / A's; loyal: share of B's
    answers that are A's; detectable: the smallest true difference found with chance 80 %. All are ratios, not points.
    notes: what else differs between the two, in words.
    """

    a: Row
    b: Row
    difference: Interval
    p: float
    flips: Flips
    ra: Interval
    loyal: Interval
    detectable: float
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The result in words."""
        a, b = name_of(self.a), name_of(self.b)
        if self.a["run_id"] == self.b["run_id"]:
            return f"no difference: both are run {self.a['run_id']}"
        if self.loyal.value == 1 and self.flips.lost == self.flips.gained == 0:
            return f"no difference: {b} answers every question as {a} does"
        if self.difference.high < 0:
            return f"{b} is worse than {a}"
        if self.difference.low > 0:
            return f"{b} is better than {a}"
        if not self.difference.low <= self.difference.high:
            return "no verdict: all questions are about one image"
        return f"no difference shown; one of {self.detectable * 100:.1f} points would be found four times in five"


def versus(a: Row, b: Row, samples: pd.DataFrame) -> Versus:
    """B against A. samples: rows of the store's `samples` that hold both runs'. Raises UsageError when they do not
    share their samples."""
    _check_samples(a, b)
    first, second = (samples[samples["run_id"] == run["run_id"]].set_index("sample_id").sort_index() for run in (a, b))
    scores, base, clusters = second["score"].to_numpy(), first["score"].to_numpy(), first["cluster"].to_numpy()
    return Versus(
        a=a,
        b=b,
        difference=paired_difference(scores, base, clusters),
        p=mcnemar(scores, base, clusters),
        flips=flips(scores, base),
        ra=ra_interval(scores, base, clusters),
        loyal=loyalty(list(second["prediction"]), list(first["prediction"]), clusters),
        detectable=minimum_detectable_effect(scores, base, clusters),
        notes=tuple(_notes(a, b)),
    )


def find_pair(store: Store, word_a: str, word_b: str) -> tuple[Row, Row]:
    """The runs that two words mean: an id or its beginning, or METHOD[:PRESET][:BUDGET].

    Where a word fits several runs, the one that shares its samples and conditions with the other word's run is meant,
    and of several codes the newest. Raises UnknownRun when none fits, UsageError when several pairs do.
    """
    runs = [run for run in rows_of(store) if run["status"] in (OK, FAILED_BUDGET, REPORTED)]
    found_a, found_b = (named(runs, word) for word in (word_a, word_b))
    for word, found in ((word_a, found_a), (word_b, found_b)):
        if not found:
            raise UnknownRun(f"no finished run {word!r} in {store.path}; `harness list runs` shows them")
    pairs = [(a, b) for a in found_a for b in found_b]
    for alike in (_SAMPLES, _CONDITIONS):
        if len(pairs) > 1:
            pairs = [(a, b) for a, b in pairs if all(_alike(a, b, key) for key in alike)] or pairs
    if len(pairs) > 1:
        choices = "; ".join(f"{a['run_id'][:8]} {b['run_id'][:8]}" for a, b in pairs[:4])
        raise UsageError(f"{word_a!r} and {word_b!r} fit {len(pairs)} pairs of runs; give ids, e.g. {choices}")
    return pairs[0]


def samples_of(store: Store, runs: Sequence[Row]) -> pd.DataFrame:
    """The rows of the store's `samples` that `versus` compares."""
    marks = ", ".join("?" for _ in runs)
    columns = "run_id, sample_id, cluster, category, score, prediction"
    return store.query(f"SELECT {columns} FROM samples WHERE run_id IN ({marks})", [run["run_id"] for run in runs])


def document(found: Versus) -> dict[str, Any]:
    """The JSON document of a comparison."""
    return {
        "a": {key: found.a[key] for key in _SHOWN},
        "b": {key: found.b[key] for key in _SHOWN},
        "verdict": found.verdict,
        "difference": _bounds(found.difference),
        "minimum_detectable_effect": found.detectable,
        "mcnemar_p": found.p,
        "flips": asdict(found.flips),
        "ra": _bounds(found.ra),
        "loyalty": _bounds(found.loyal),
        "clusters": found.difference.clusters,
        "notes": list(found.notes),
    }


def _alike(a: Row, b: Row, key: str) -> bool:
    """True if a pair agrees in a column; no pruning has no seed of its own."""
    return a[key] == b[key] or (key == "seed" and "full" in (a["method"], b["method"]))


def _check_samples(a: Row, b: Row) -> None:
    for run in (a, b):
        if run["accuracy"] is None:
            raise UsageError(
                f"{name_of(run)} has no scores of single questions on {run['benchmark']}, only metrics: "
                f"harness show {run['run_id'][:8]}"
            )
    differ = [key for key in _SAMPLES if a[key] != b[key]]
    if not differ:
        return
    told = "; ".join(f"{key.replace('_', ' ')} {a[key]} and {b[key]}" for key in differ if key != "sample_ids")
    counts = f"{a['n']} samples (limit {_limit(a)}) and {b['n']} (limit {_limit(b)})"
    raise UsageError(
        f"{name_of(a)} and {name_of(b)} did not answer the same samples: {told or counts}; "
        "run one of them again with the other's --benchmark and --limit"
    )


def _limit(run: Row) -> str:
    return str(run["sample_limit"] or "none")


def _notes(a: Row, b: Row) -> Iterator[str]:
    if (a["method"], a["preset"]) == (b["method"], b["preset"]):
        names = sorted(a["settings"].keys() | b["settings"].keys())
        changed = [name for name in names if a["settings"].get(name) != b["settings"].get(name)]
        yield from (f"{name}: {a['settings'].get(name)} against {b['settings'].get(name)}" for name in changed)
    for key in _CONDITIONS:
        if not _alike(a, b, key):
            yield f"{key.replace('_', ' ')}: {a[key]} against {b[key]}"
    tokens = [run["realised_tokens"] for run in (a, b)]
    if None in tokens:
        yield "budgets that nobody measured"
    elif "full" not in (a["method"], b["method"]) and abs(tokens[0] - tokens[1]) > 1:
        yield f"not at one budget: {tokens[0]:.1f} visual tokens a layer against {tokens[1]:.1f}"
    for run in {run["run_id"]: run for run in (a, b)}.values():
        if run["status"] == FAILED_BUDGET:
            yield f"{name_of(run)} failed its budget and is never ranked"
        if run["stale"]:
            yield f"{name_of(run)} is stale: the code that gives answers has changed since"


def _bounds(found: Interval) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high}


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
