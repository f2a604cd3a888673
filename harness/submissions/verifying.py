"""`harness verify`: some questions of a submitted run answered again, and compared one by one.

Re-scoring finds a forged score; only running the method again finds forged answers and forged token counts. What was
counted must be equal. Answers may differ in one question of twenty: another processor rounds otherwise, and a token
may tip. A native budget follows the method's own thresholds, so that there counts may tip as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from harness.records.run_spec import RunSpec
from harness.request.opening import Bench, Sources, open_bench
from harness.request.request import Request
from harness.run.accuracy import answerer_of
from harness.submissions.document import SCHEMA_VERSION, file_hash
from harness.submissions.eligibility import source_of
from harness.submissions.folder import Batch, Problem, Rejected, open_batch
from harness.submissions.later_checks import drawn_ids
from harness.submissions.parquet import stream_runs
from harness.submissions.row_checks import row_problems
from harness.submissions.rows import spell_counts
from harness.submissions.run_checks import Claim, claim_of, same
from harness.submissions.safe_json import canonical

ANSWERS_AGREE_RATIO = 0.95  # of the repeated questions


@dataclass(frozen=True)
class RepeatedRun:
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
) -> RepeatedRun:
    """Answer `samples` questions of a run again, drawn by `seed`.

    method: the file of a run whose method is from a file, without meaning for others; model: where its weights lie,
    if not under its name. Raises UsageError, EnvironmentProblem where what is at hand is not what was submitted.
    """
    request = request_of(claim, method, model, data_dir, device)
    pairs, code = answer_again(claim, request, drawn_ids(claim.by_id, samples, seed), watcher, sources)
    return _found(claim, pairs, seed, code)


def answer_again(
    claim: Claim, request: Request, ids: Sequence[str], watcher: Watcher, sources: Sources | None
) -> tuple[list[tuple[Record, Record]], str]:
    """(the stated record, the one that today's code gives) of each sample id, and the code identity that did."""
    bench = open_bench(request, sources or SOURCES)
    cell = bench.cell(request)
    _check_same(claim.spec, cell.spec)
    samples, stated, pairs = _samples(claim, bench, ids), claim.by_id, []
    watcher.begins(f"repeating {cell.title}", len(samples), 0)
    try:
        with answerer_of(bench)(bench, cell) as answer:
            for sample in samples:
                pairs.append((stated[sample.id], answer(sample)))
                watcher.advanced()
    finally:
        watcher.ends()
    return pairs, cell.spec.code


def write_verification(folder: Path, found: RepeatedRun) -> Path:
    """RUN.verification.json beside the run. What an earlier repetition found is replaced."""
    path = folder / f"{found.run_id}.verification.json"
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(canonical(found.document))
    fresh.replace(path)
    return path


def request_of(
    claim: Claim, method: str | None, model: str | None, data_dir: Path | None, device: str | None
) -> Request:
    """The request that gives a run again. Raises UsageError where its method's file is missing, or another."""
    spec = claim.spec
    from_file = spec.method.startswith("./")
    if from_file and method is None:
        raise UsageError(f"the run is of a method from a file, {spec.method}; give the file: --method PATH")
    named = method if from_file and method is not None else spec.method
    if from_file and not _is_the_file(named, claim):
        raise UsageError(f"{named} is not the file that was run, neither its code nor its bytes; give that one")
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


def _is_the_file(method: str, claim: Claim) -> bool:
    """True for a user's file that gives the run's code identity, or, where our code changed since, its bytes."""
    same_code = current_code(method, claim.spec.model, claim.spec.benchmark) == claim.spec.code
    return same_code or file_hash(source_of(method)) == claim.document["method"]["file_sha256"]


def _settings(method: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the method takes them: JSON has lists for tuples."""
    from harness.request.settings import parse_settings
    from methods import get

    return parse_settings(method, get(method), [f"{name}={value}" for name, value in stated.items()])


def _check_same(spec: RunSpec, here: RunSpec) -> None:
    """Raise EnvironmentProblem for other weights or questions than the run's, UsageError for other settings."""
    for name in ("model_revision", "benchmark_revision", "adapter"):
        found, stated = getattr(here, name), getattr(spec, name)
        if found != stated:
            raise EnvironmentProblem(f"{name} here is {found[:16]!r}, the run's is {stated[:16]!r}; get that revision")
    if here.settings != spec.settings:
        raise UsageError(f"the method takes the settings {dict(here.settings)}, the run states {dict(spec.settings)}")


def _samples(claim: Claim, bench: Bench, ids: Iterable[str]) -> list[Sample]:
    known = {sample.id: sample for sample in bench.samples}
    unknown = [one for one in claim.by_id if one not in known]
    if unknown:
        raise UsageError(f"{unknown[0]} is no question of {bench.benchmark.name}; `harness validate` says more")
    return [known[one] for one in ids]


def _found(claim: Claim, pairs: Sequence[tuple[Record, Record]], seed: int, code: str) -> RepeatedRun:
    other_code = code != claim.spec.code
    answers = [same_answer(stated, here) for stated, here in pairs]
    tokens = [counts(stated, other_code) == counts(here, other_code) for stated, here in pairs]
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
        "code": code,
        "commit": git_state().commit,
        "machine_id": machine().id,
        "verified_at": datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds"),
    }
    told = [words for stated, here in pairs for words in differences(stated, here, other_code)]
    return RepeatedRun(claim.run_id, name_of(claim.spec), document, told, other_code)


def name_of(spec: RunSpec) -> str:
    """A run in words: "fastv 50%"."""
    return f"{spec.method} {BudgetSpec(spec.budget_kind, spec.budget_value)}"


def same_answer(stated: Record, here: Record) -> bool:
    """True if two records say the same and score the same, or if only a whole run is scored."""
    return stated.prediction == here.prediction and (here.score is None or same(stated.score, here.score))


def counts(record: Record, other_code: bool) -> tuple[Any, ...]:
    """What must be equal. FLOPs are counted by code that may have changed since; tokens are not."""
    flops = () if other_code else tuple(record.flops.get(stage) for stage in ("total", "llm", "paper_2ndm"))
    return record.full_tokens, record.asked_tokens, record.entering, record.error is None, flops


def differences(stated: Record, here: Record, other_code: bool) -> Iterator[str]:
    """A sentence for each way in which a record is not the stated one. other_code: FLOPs are left out."""
    if counts(stated, other_code) != counts(here, other_code):
        yield f"{stated.sample_id}: stated {_spelled(stated)}, here {_spelled(here)}"
    if not same_answer(stated, here):
        score = "not judged alone" if here.score is None else f"{here.score:g}"
        said = f"stated {stated.prediction[:40]!r} ({stated.score:g})"
        yield f"{stated.sample_id}: {said}, here {here.prediction[:40]!r} ({score})"


def _spelled(record: Record) -> str:
    flops = record.flops.get("total")
    cost = f", {flops / 1e9:.3f} GFLOPs" if flops else ""
    return f"{spell_counts(record.entering) or 'no'} visual tokens a layer of {record.full_tokens}{cost}"
