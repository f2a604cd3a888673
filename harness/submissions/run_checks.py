"""What one submitted run claims, against its own rows: hashes, bounds, budgets, and every figure counted again.

The figures are counted by the code that counts them for a run (harness/run/figures.py), from the rows alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.budget.planning import misses_budget
from harness.budget.spec import BudgetError, BudgetSpec
from harness.records.figures import FAILED_BUDGET, Figures
from harness.records.provenance import sample_ids_hash
from harness.records.records import FULL, RANDOM, Record, digest
from harness.records.run_spec import RunSpec
from harness.run.figures import figures_of
from harness.stats import paired_difference
from harness.store.log_reader import RunContents
from harness.submissions.row_checks import PRIVATE, Document, Rows
from harness.submissions.rows import records_of
from methods import names

TOLERANCE = 1e-6  # of a figure counted again, absolute below 1 and relative above
FLOPS_RATIO_TOLERANCE = 0.05  # of a flops_ratio budget: a token is a coarse step on a small image
LR_TOLERANCE = 0.25  # between LR and what the medians of its two arms say
RANDOM_WEIGHTS = "random_weights"  # begins the revision of a model whose weights mean nothing
_TIMED = ("lr", "latency", "indicative", "host_bound", "throttled", "aa_ratio", "base_ms", "pruned_ms", "base_p90")
_NOT_COUNTED = ("status", "message", "metrics", "inference_time_s", "reference_run_id")


@dataclass(frozen=True)
class Claim:
    """A run's document beside its records, in the benchmark's order."""

    document: Document
    spec: RunSpec
    records: tuple[Record, ...]

    @property
    def run_id(self) -> str:
        return self.document["run_id"]

    @property
    def by_id(self) -> dict[str, Record]:
        return {record.sample_id: record for record in self.records}

    @property
    def contents(self) -> RunContents:
        """The records as the log of a run would hold them."""
        return RunContents(
            spec=self.spec,
            sessions=(),
            records=self.by_id,
            latencies=(),
            resources=(),
            figures=None,
            finished_at=None,
            good_bytes=0,
            dropped_bytes=0,
        )


def claim_of(document: Document, rows: Rows) -> Claim:
    """A document and its rows, once `row_problems` has nothing to say of them."""
    return Claim(document, RunSpec(**document["spec"]), tuple(records_of(rows)))


def identity_problems(claim: Claim) -> Iterator[str]:
    """Hashes that do not come out, and words that contradict one another."""
    document, spec = claim.document, claim.spec
    if spec.run_id != claim.run_id:
        yield f"run_id should be {spec.run_id}, the hash of its spec"
    if sample_ids_hash([record.sample_id for record in claim.records]) != spec.sample_ids:
        yield "its sample ids, in order, do not give spec.sample_ids"
    if digest(document["machine"]["hardware"]) != document["machine"]["machine_id"]:
        yield "machine_id is not the hash of the hardware"
    if document["method"]["origin"] != origin_of(spec.method):
        yield f"method {spec.method} is of origin {origin_of(spec.method)} here, not {document['method']['origin']}"
    if spec.model_revision.startswith(RANDOM_WEIGHTS):
        yield "its model has random weights: its answers mean nothing"
    private = PRIVATE.search(json.dumps(document, ensure_ascii=False))
    if private:
        yield f"it holds what looks like a private path or key: {private.group()[:12]!r}..."
    if document["finished_at"] and document["finished_at"] < document["started_at"]:
        yield "it ended before it began"


def origin_of(method: str) -> str:
    """Where a method comes from: a "file", "methods" (this repository), or a "package" that brings it."""
    if method.startswith("./"):
        return "file"
    return "methods" if method in names() else "package"


def budget_problems(claim: Claim) -> Iterator[str]:
    """Whether the tokens that ran meet the budget that was asked, sample by sample."""
    spec = claim.spec
    try:
        budget = BudgetSpec(spec.budget_kind, spec.budget_value)
        if BudgetSpec.parse(str(budget)) != budget:
            raise BudgetError(f"{budget} is no budget")
    except BudgetError as problem:
        yield f"its budget cannot be read: {problem}"
        return
    ran = [record for record in claim.records if record.error is None]
    if len({len(record.entering) for record in ran}) > 1:
        yield "its rows have different numbers of LLM layers"
    if spec.method == FULL:
        if str(budget) != "100%" or any(set(record.entering) != {record.full_tokens} for record in ran):
            yield "no pruning keeps every visual token in every layer"
        return
    if spec.budget_kind == "native":
        asked = [record for record in ran if record.asked_tokens is not None]
    elif spec.budget_kind == "flops_ratio":
        asked = [record for record in ran if record.asked_tokens is None]
    else:
        asked = [record for record in ran if record.asked_tokens != budget.ask(record.full_tokens)]
    if asked:
        one = asked[0]
        yield (
            f"asked_tokens is not what {budget} means in {len(asked)} rows, e.g. {one.sample_id}: "
            f"{one.asked_tokens} of {one.full_tokens}"
        )
    missed = [record for record in ran if misses_budget(record, spec.budget_kind, spec.method)]
    if missed:
        yield f"{len(missed)} rows miss the budget, e.g. {missed[0].sample_id}; a run that does is never ranked"
    ratio = claim.document["figures"].get("flops_ratio")
    if spec.budget_kind == "flops_ratio" and (ratio is None or ratio > spec.budget_value + FLOPS_RATIO_TOLERANCE):
        yield f"it asked for {budget} and ran at {ratio}"


def figure_problems(claim: Claim, full: Claim) -> Iterator[str]:
    """Figures that the rows do not give. full: the unpruned run's claim, which holds the same samples."""
    if claim.by_id.keys() != full.by_id.keys():
        yield f"it did not answer the samples of its full run {full.run_id}"
        return
    own = claim.contents
    counted = figures_of(own, own if full is claim else full.contents, "")
    if counted.status == FAILED_BUDGET:
        return  # told by `budget_problems`
    stated = {**asdict(Figures(counted.status)), **claim.document["figures"]}
    for name in (one.name for one in fields(Figures) if one.name not in _NOT_COUNTED and not _is_timed(one.name)):
        if not same(stated[name], getattr(counted, name)):
            yield f"figures.{name} is {stated[name]}, its rows give {getattr(counted, name)}"
    if stated["reference_run_id"] != full.run_id:
        yield f"figures.reference_run_id is not its full run {full.run_id}"


def timing_problems(figures: Mapping[str, Any]) -> Iterator[str]:
    """Times that contradict one another; only `harness run` on such a machine can say more of them."""
    lr, low, high = (figures.get(name) for name in ("lr", "lr_low", "lr_high"))
    totals = [figures.get(name, {}).get("total") for name in ("base_ms", "pruned_ms")]
    if lr is None:
        return
    if low is not None and high is not None and not low <= lr <= high:
        yield f"LR {lr} lies outside its interval"
    if not all(totals):
        yield "it has an LR and no times"
    elif abs(lr - (1 - totals[1] / totals[0])) > LR_TOLERANCE:
        yield f"LR is {lr}, its medians are {totals[0]} and {totals[1]} ms"


def control_problems(claim: Claim, full: Claim | None, randoms: Sequence[Claim | None]) -> Iterator[str]:
    """Controls that are missing, or are of another cell. full, randoms: those it names, None where there is none."""
    if full is None:
        yield "its full run is not among the submissions; submit it together with the run"
    else:
        yield from _unlike(claim, full, FULL)
    for named, random in zip(claim.document["controls"]["random"], randoms, strict=True):
        if random is None:
            yield f"its random run {named['run_id']} is not among the submissions"
        else:
            yield from _unlike(claim, random, RANDOM)
            yield from _paired_problems(claim, random, named)
    if not randoms and claim.spec.method not in (FULL, RANDOM) and claim.spec.budget_kind != "native":
        yield "it names no random run at its budget; `harness run` makes one with every run"


CELL = (
    *("model", "model_revision", "benchmark", "benchmark_revision", "sample_ids"),
    *("dtype", "attention", "image_backend", "device", "protocol"),
)


def _unlike(claim: Claim, control: Claim, method: str) -> Iterator[str]:
    keys = CELL if method == FULL else (*CELL, "budget_kind", "budget_value")
    differ = [key for key in keys if getattr(claim.spec, key) != getattr(control.spec, key)]
    if control.spec.method != method:
        yield f"its {method} run {control.run_id} is a run of {control.spec.method}"
    elif differ:
        yield f"its {method} run {control.run_id} differs from it in {', '.join(differ)}"


def _paired_problems(claim: Claim, random: Claim, named: Mapping[str, Any]) -> Iterator[str]:
    if random.by_id.keys() != claim.by_id.keys():
        yield f"it did not answer the samples of its random run {random.run_id}"
        return
    counted = {**over(claim.by_id, random.by_id), "seed": random.spec.seed}
    for name, value in counted.items():
        if not same(named[name], value):
            yield f"{name} of random run {random.run_id} is {named[name]}, the rows give {value}"


def over(own: Mapping[str, Record], other: Mapping[str, Record]) -> dict[str, float | None]:
    """Accuracy of one run minus another's on the same samples, with its 95 % interval; None: no bounds."""
    records = list(own.values())
    found = paired_difference(
        [record.score for record in records],
        [other[record.sample_id].score for record in records],
        [record.cluster for record in records],
    )
    low, high = (None if bound != bound else bound for bound in (found.low, found.high))
    return {"accuracy_over_this": found.value, "accuracy_over_this_low": low, "accuracy_over_this_high": high}


def same(stated: Any, counted: Any) -> bool:
    """Whether a stated number is the counted one; what is not finite counts as not stated."""
    if isinstance(counted, float) and not math.isfinite(counted):
        counted = None
    if stated is None or counted is None:
        return stated is counted
    return math.isclose(stated, counted, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _is_timed(name: str) -> bool:
    parts = ("_ms", "_residual_ratio", "_attention", "_bytes", "_per_s", "_joules", "throughput", "roofline")
    others = ("lr_efficiency", "select_tax", "late_ceiling_lr", "floor_tokens")
    return name.startswith(_TIMED) or any(part in name for part in parts) or name in others
