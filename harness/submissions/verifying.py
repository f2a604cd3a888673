"""`harness verify`: some questions of a submitted run answered again, and compared one by one.

Re-scoring finds a forged score; only running the method again finds forged answers and forged token counts. What was
counted must be equal. Answers may differ in one question of twenty: another processor rounds otherwise, and a token
may tip. A native budget follows the method's own thresholds, so that there counts may tip as well.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.budget.spec import BudgetSpec
from harness.integrations.lmms_eval.opening import SOURCES
from harness.latency.machine import machine
from harness.records.errors import EnvironmentProblem, UsageError
from harness.records.progress import Watcher
from harness.records.provenance import current_code, git_state
from harness.records.records import Record, Sample
from harness.request.opening import Bench, Sources, open_bench
from harness.request.request import Request
from harness.run.accuracy import Answer, answerer_of
from harness.submissions.document import SCHEMA_VERSION, file_hash
from harness.submissions.eligibility import source_of
from harness.submissions.folder import Batch, Problem, Rejected, open_batch
from harness.submissions.parquet import stream_runs
from harness.submissions.row_checks import row_problems
from harness.submissions.run_checks import Claim, claim_of, same
from harness.submissions.safe_json import canonical

ANSWERS_AGREE_RATIO = 0.95  # of the repeated questions


@dataclass(frozen=True)
class Repetition:
    """What a repetition found. differences: a sentence for each question that came out otherwise."""

    run_id: str
    name: str
    document: Mapping[str, Any]
    differences: Sequence[str]
    other_code: bool

    @property
    def agreed(self) -> bool:
        return self.document["agreed"]


def claims_of(path: Path) -> list[Claim]:
    """The runs that a path names: a batch, or RUN.json in one. Raises UsageError, Rejected."""
    wrong: list[Problem] = []
    folder = path if path.is_dir() else path.parent
    batch = open_batch(folder, wrong) if folder.is_dir() else Batch(folder, {}, {})
    wanted = set(batch.documents) if path.is_dir() else {path.stem} & set(batch.documents)
    if wrong:
        raise Rejected(f"{wrong[0]}; `harness validate {folder}` says more")
    if not wanted:
        raise UsageError(f"no submission at {path}; give a batch, results/submissions/BATCH, or a RUN.json in it")
    found = []
    for run_id, rows in stream_runs(batch.samples, sorted(wanted)):
        if any(row_problems(batch.documents[run_id], rows)):
            raise Rejected(f"the rows of {run_id} are not what they should be; `harness validate {folder}` says more")
        found.append(claim_of(batch.documents[run_id], rows))
    return found


def repeat(
    claim: Claim,
    watcher: Watcher,
    *,
    method: str | None = None,
    model: str | None = None,
    samples: int = 20,
    seed: int = 0,
    sources: Sources | None = None,
    data_dir: Path | None = None,
    device: str | None = None,
) -> Repetition:
    """Answer `samples` questions of a run again, drawn by `seed`.

    method: the file of a run whose method is from a file, without meaning for others; model: where its weights lie,
    if not under its name. Raises UsageError, EnvironmentProblem where what is at hand is not what was submitted.
    """
    request = _request(claim, method, model, data_dir, device)
    bench = open_bench(request, sources or SOURCES)
    cell = bench.cell(request)
    _check_same(claim, bench, cell.spec.settings)
    drawn = _drawn(claim, bench, samples, seed)
    watcher.begins(f"repeating {cell.title}", len(drawn), 0)
    try:
        with answerer_of(bench)(bench, cell) as answer:
            pairs = list(_answered(claim, drawn, answer, watcher))
    finally:
        watcher.ends()
    return _found(claim, pairs, seed, current_code(request.method))


def write_verification(folder: Path, found: Repetition) -> Path:
    """RUN.verification.json beside the run. What an earlier repetition found is replaced."""
    path = folder / f"{found.run_id}.verification.json"
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(canonical(found.document))
    fresh.replace(path)
    return path


def _request(claim: Claim, method: str | None, model: str | None, data_dir: Path | None, device: str | None) -> Request:
    spec = claim.spec
    from_file = spec.method.startswith("./")
    if from_file and method is None:
        raise UsageError(f"the run is of a method from a file, {spec.method}; give the file: --method PATH")
    named = method if from_file and method is not None else spec.method
    if file_hash(source_of(named)) != claim.document["method"]["file_sha256"]:
        raise UsageError(f"the file of {named} is not the one that was run (method.file_sha256); check out its commit")
    return Request(
        method=f"{named}:{spec.preset}" if spec.preset else named,
        budget=BudgetSpec(spec.budget_kind, spec.budget_value),
        model=model or spec.model,
        benchmark=spec.benchmark,
        settings=_settings(named, spec.settings),
        seed=spec.seed,
        dtype=spec.dtype,
        device=device or spec.device,
        attention=spec.attention,
        image_backend=spec.image_backend,
        data_dir=data_dir and str(data_dir),
    )


def _settings(method: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the method takes them: JSON has lists for tuples."""
    from harness.request.settings import parse_settings
    from methods import get

    return parse_settings(method, get(method), [f"{name}={value}" for name, value in stated.items()])


def _check_same(claim: Claim, bench: Bench, settings: Mapping[str, Any]) -> None:
    spec = claim.spec
    for what, here, stated in (
        ("model_revision", bench.model.revision, spec.model_revision),
        ("benchmark_revision", bench.benchmark.revision, spec.benchmark_revision),
    ):
        if here != stated:
            raise EnvironmentProblem(f"{what} here is {here[:16]}, the run's is {stated[:16]}; get that revision")
    if settings != spec.settings:
        raise UsageError(f"the method takes the settings {dict(settings)}, the run states {dict(spec.settings)}")


def _drawn(claim: Claim, bench: Bench, count: int, seed: int) -> list[Sample]:
    known = {sample.id: sample for sample in bench.samples}
    ids = sorted(record.sample_id for record in claim.records)
    unknown = [one for one in ids if one not in known]
    if unknown:
        raise UsageError(f"{unknown[0]} is no question of {bench.benchmark.name}; `harness validate` says more")
    return [known[one] for one in random.Random(seed).sample(ids, min(count, len(ids)))]


def _answered(
    claim: Claim, drawn: Sequence[Sample], answer: Answer, watcher: Watcher
) -> Iterator[tuple[Record, Record]]:
    stated = claim.by_id
    for sample in drawn:
        yield stated[sample.id], answer(sample)
        watcher.advanced()


def _found(claim: Claim, pairs: Sequence[tuple[Record, Record]], seed: int, code: str | None) -> Repetition:
    other_code = code != claim.spec.code
    answers = [stated.prediction == here.prediction and _scored_alike(stated, here) for stated, here in pairs]
    tokens = [_counts(stated, other_code) == _counts(here, other_code) for stated, here in pairs]
    native = claim.spec.budget_kind == "native"
    enough = ANSWERS_AGREE_RATIO * len(pairs)
    agreed = sum(answers) >= enough and (sum(tokens) >= enough if native else all(tokens))
    document = {
        "schema_version": SCHEMA_VERSION,
        "run_id": claim.run_id,
        "samples_sha256": claim.document["samples"]["sha256"],
        "agreed": agreed,
        "seed": seed,
        "repeated": len(pairs),
        "same_answers": sum(answers),
        "same_tokens": sum(tokens),
        "code": code or claim.spec.code,
        "commit": git_state().commit,
        "machine_id": machine().id,
        "verified_at": datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds"),
    }
    differences = [
        words
        for (stated, here), answer, counts in zip(pairs, answers, tokens, strict=True)
        for words in _differences(stated, here, answer, counts)
    ]
    name = f"{claim.spec.method} {BudgetSpec(claim.spec.budget_kind, claim.spec.budget_value)}"
    return Repetition(claim.run_id, name, document, differences, other_code)


def _scored_alike(stated: Record, here: Record) -> bool:
    """True also where only a whole run is judged."""
    return here.score is None or same(stated.score, here.score)


def _counts(record: Record, other_code: bool) -> tuple[Any, ...]:
    """What must be equal. FLOPs are counted by code that may have changed since; tokens are not."""
    flops = () if other_code else tuple(record.flops.get(stage) for stage in ("total", "llm", "paper_2ndm"))
    return record.full_tokens, record.asked_tokens, record.entering, record.error is None, flops


def _differences(stated: Record, here: Record, answer: bool, counts: bool) -> Iterator[str]:
    if not counts:
        yield f"{stated.sample_id}: stated {_spelled(stated)}, here {_spelled(here)}"
    if not answer:
        score = "not judged alone" if here.score is None else f"{here.score:g}"
        said = f"stated {stated.prediction[:40]!r} ({stated.score:g})"
        yield f"{stated.sample_id}: {said}, here {here.prediction[:40]!r} ({score})"


def _spelled(record: Record) -> str:
    from harness.submissions.rows import spell_counts

    flops = record.flops.get("total")
    cost = f", {flops / 1e9:.3f} GFLOPs" if flops else ""
    return f"{spell_counts(record.entering) or 'no'} visual tokens a layer of {record.full_tokens}{cost}"
