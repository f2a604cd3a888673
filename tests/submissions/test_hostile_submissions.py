"""Submissions that are broken, forged or meant to harm: each is refused with its reason, and nothing else happens."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hand_submissions import Template, forge, forge_rows, prepared

from harness.records.errors import HarnessError
from harness.records.run_spec import RunSpec
from harness.submissions import SAMPLE_COLUMNS, read
from harness.submissions.folder import RUN_NAME
from harness.submissions.folder_checks import batch_name, check_results
from harness.submissions.later_checks import drawn_ids
from harness.submissions.parquet import stream_runs
from harness.submissions.safe_json import canonical

HTML, SQL = "<img src=x onerror=alert(1)>", "x'; DROP TABLE runs; --"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    with prepared(tmp_path_factory.mktemp("submitted")) as made:
        yield made


@dataclass(frozen=True)
class Victim:
    """A folder of results with one good batch, to be spoiled. own: the run of divprune in it."""

    results: Path
    batch: Path
    own: str

    @property
    def document(self) -> Path:
        return self.batch / f"{self.own}.json"

    @property
    def samples(self) -> Path:
        return self.batch / "samples.parquet"

    def change(self, **parts: Any) -> None:
        """Change parts of the run's document: `figures={"ra": 2}` changes that figure only."""
        document = json.loads(self.document.read_text())
        for part, value in parts.items():
            document[part] = {**document[part], **value} if isinstance(value, dict) else value
        self.document.write_bytes(canonical(document))

    def change_spec(self, **changes: Any) -> None:
        """Change the run's identity as somebody would who knows how ids are made."""
        document = json.loads(self.document.read_text())
        spec = RunSpec(**{**document["spec"], **changes})
        document |= {"spec": asdict(spec), "run_id": spec.run_id}
        self.document.unlink()
        (self.batch / f"{spec.run_id}.json").write_bytes(canonical(document))
        forge_rows(self.batch, self.own, lambda rows: [{**row, "run_id": spec.run_id} for row in rows], spec.run_id)

    def settle(self) -> Path:
        """Name the batch as a careful forger would. Gives its folder."""
        documents = [json.loads(path.read_text()) for path in self.batch.iterdir() if RUN_NAME.fullmatch(path.name)]
        return self.batch.rename(self.batch.parent / batch_name(documents))


@pytest.fixture
def victim(template: Template, tmp_path: Path) -> Victim:
    results = template.results_in(tmp_path)
    (batch,) = (results / "submissions").iterdir()
    (own,) = [path.stem for path in batch.glob("*.json") if '"divprune"' in path.read_text()]
    return Victim(results, batch, own)


def figures(**changes: Any) -> Callable[[Victim], None]:
    return lambda victim: victim.change(figures=changes)


def spec(**changes: Any) -> Callable[[Victim], None]:
    return lambda victim: victim.change_spec(**changes)


def part(**changes: Any) -> Callable[[Victim], None]:
    return lambda victim: victim.change(**changes)


def cells(**changes: Any) -> Callable[[Victim], None]:
    return lambda victim: forge(victim.batch, victim.own, **changes)


def rows(change: Callable[[list], list]) -> Callable[[Victim], None]:
    return lambda victim: forge_rows(victim.batch, victim.own, change)


def text(content: bytes) -> Callable[[Victim], None]:
    return lambda victim: victim.document.write_bytes(content)


def swapped(old: str, new: str) -> Callable[[Victim], None]:
    return lambda victim: victim.document.write_text(victim.document.read_text().replace(old, new, 1))


def parquet(content: bytes) -> Callable[[Victim], None]:
    return lambda victim: victim.samples.write_bytes(content)


def from_sql(query: str) -> Callable[[Victim], None]:
    """The samples file in another shape: OLD in the query stands for the good one."""

    def spoil(victim: Victim) -> None:
        old = victim.samples.rename(victim.results.parent / "old.parquet")
        asked = query.replace("OLD", f"read_parquet('{old}')")
        duckdb.execute(f"COPY ({asked}) TO '{victim.samples}' (FORMAT parquet, COMPRESSION zstd)")
        old.unlink()

    return spoil


def linked(name: str) -> Callable[[Victim], None]:
    def spoil(victim: Victim) -> None:
        target = {"document": victim.document, "samples": victim.samples, "batch": victim.batch}[name]
        target.rename(victim.results.parent / "elsewhere")
        target.symlink_to(victim.results.parent / "elsewhere")

    return spoil


def stranger(name: str, content: bytes = b"#!/bin/sh\ntouch /tmp/owned\n") -> Callable[[Victim], None]:
    def spoil(victim: Victim) -> None:
        path = victim.results / "submissions" / name.replace("BATCH", victim.batch.name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    return spoil


def copied(victim: Victim) -> None:
    shutil.copytree(victim.batch, victim.batch.with_name("copy"))


def controls_gone(victim: Victim) -> None:
    for run_id in [one["run_id"] for one in json.loads(victim.document.read_text())["controls"]["random"]]:
        (victim.batch / f"{run_id}.json").unlink()
        forge_rows(victim.batch, run_id, lambda rows: [])


def own_gone(victim: Victim) -> None:
    victim.document.unlink()
    forge_rows(victim.batch, victim.own, lambda rows: [])


def full_is_random(victim: Victim) -> None:
    controls = json.loads(victim.document.read_text())["controls"]
    named = {key: controls["random"][0][key] for key in ("run_id", "samples_sha256")}
    victim.change(controls={**controls, "full": named}, figures={"reference_run_id": named["run_id"]})


def huge(victim: Victim) -> None:
    with victim.samples.open("r+b") as file:
        file.truncate(17 * 2**20)


def verified(**changes: Any) -> Callable[[Victim], None]:
    def spoil(victim: Victim) -> None:
        sha256 = json.loads(victim.document.read_text())["samples"]["sha256"]
        told = {"schema_version": 1, "run_id": victim.own, "samples_sha256": sha256, "agreed": True, "seed": 0,
                "repeated": 20, "same_answers": 20, "same_tokens": 20, "code": "0" * 16, "commit": None,
                "machine_id": "0" * 16, "verified_at": None, **changes}  # fmt: skip
        (victim.batch / f"{victim.own}.verification.json").write_bytes(canonical(told))

    return spoil


def reidentified(name: str = "", **changes: Any) -> Callable[[Victim], None]:
    """Adds a note of code, or what `name` is (with {run}), over all eight questions as seed 0 draws them."""

    def spoil(victim: Victim) -> None:
        sha256 = json.loads(victim.document.read_text())["samples"]["sha256"]
        ids = [row["sample_id"] for row in dict(stream_runs(victim.samples))[victim.own]]
        told = {"schema_version": 1, "run_id": victim.own, "samples_sha256": sha256, "code": CODE, "seed": 0,
                "sample_ids": drawn_ids(ids, 8, 0), "repeated": 8, "same_answers": 8, "same_tokens": 8, "same_flops": 8,
                "commit": None, "machine_id": "0" * 16, "reidentified_at": None, **changes}  # fmt: skip
        file = (name or "{run}.{code}.code.json").format(run=victim.own, code=CODE)
        (victim.batch / file).write_bytes(canonical(told))

    return spoil


CODE, RETIRED = "c0de" * 4, "{run}.retirement.json"


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __reduce__(self) -> tuple:
        return (exec, (f"open({str(OWNED)!r}, 'w')",))


OWNED = Path("/tmp/owned-by-a-submission")
PICKLE = pickle.dumps(Bomb())

HOSTILE: dict[str, tuple[Callable[[Victim], None], str]] = {
    # forged results, with hashes made to fit
    "scores": (cells(score=1.0), "scores are not what the answers score"),
    "mean": (figures(accuracy=1.0), "figures.accuracy is 1.0, its rows give 0.875"),
    "RA": (figures(ra=1.02), "figures.ra is 1.02"),
    "interval": (figures(accuracy_low=0.874), "figures.accuracy_low is 0.874"),
    "full accuracy": (figures(full_accuracy=0.875, ra=1.0), "figures.full_accuracy"),
    "FLOPs ratio": (figures(flops_ratio=0.1), "figures.flops_ratio is 0.1"),
    "tokens": (figures(realised_tokens=3.0), "figures.realised_tokens is 3.0"),
    "questions": (figures(n=800), "figures: 800"),
    "metric": (figures(metrics={"exact_match": 1.0}), "metric exact_match is 1.0"),
    "unknown rule": (figures(metrics={"exact_match": 0.875, "my_rule": 1.0}), "metric my_rule is 1.0"),
    "over random": (
        lambda victim: swapped('"accuracy_over_this": 0.375', '"accuracy_over_this": 0.5')(victim),
        "accuracy_over_this of random run",
    ),
    "latency above all": (figures(lr=1.0), "figures.lr is 1.0, too large"),
    "latency against its medians": (
        figures(lr=0.9, base_ms={"total": 10.0}, pruned_ms={"total": 9.0}),
        "LR is 0.9, its medians are 10.0 and 9.0 ms",
    ),
    "latency outside its interval": (figures(lr=0.5, lr_low=0.6, lr_high=0.7), "lies outside its interval"),
    "negative latency": (figures(base_ms={"total": -1.0}), "figures.base_ms.total is -1.0, too small"),
    "easier clusters": (cells(cluster="one"), "cluster or category of 8 rows"),
    # budgets
    "over the budget": (cells(entering_tokens="12*4"), "8 rows miss the budget"),
    "another budget": (cells(asked_tokens=8, entering_tokens="8*4"), "asked_tokens is not what 50% means in 8 rows"),
    "more tokens than there are": (cells(entering_tokens="13*4"), "entering_tokens '13*4' of 12"),
    "counts nobody can read": (cells(entering_tokens="9" * 4000), "8 rows are out of bounds"),
    "a million layers": (cells(entering_tokens="6*1000000"), "at most 1024 layers"),
    "no budget": (spec(budget_value=0.3333333333333333333), "asked_tokens is not what"),
    "flops": (spec(budget_kind="flops_ratio", budget_value=0.1), "it asked for flops_ratio:10% and ran at 0.5"),
    "NaN score": (from_sql("SELECT * REPLACE ('nan'::DOUBLE AS score) FROM OLD"), "8 rows are out of bounds"),
    "infinite recall": (cells(recall_of_target=float("inf")), "recall_of_target inf"),
    "negative FLOPs": (cells(prefill_flops=-1), "FLOPs [-1"),
    # identity
    "settings under another id": (part(spec={"settings": {"best": True}}), "run_id should be"),
    "sample ids": (spec(sample_ids="0" * 16), "do not give spec.sample_ids"),
    "benchmark revision": (spec(benchmark_revision="0" * 64), "benchmark_revision is not that of reference"),
    "unknown benchmark": (spec(benchmark="mine"), "no benchmark 'mine' that others have"),
    "unknown method": (spec(method="magic"), "method magic is of origin package here, not methods"),
    "machine": (part(machine={"machine_id": "0" * 16}), "machine_id is not the hash"),
    "random weights": (spec(model_revision="random_weights_0"), "random weights"),
    "limited": (spec(limit=8), "spec.limit should be null, got 8"),
    "dirty code": (part(code={"dirty": True}), "code.dirty should be"),
    "another schema": (part(schema_version=2), "schema_version should be 1, got 2"),
    "a key more": (part(pwned=1), "unknown key 'pwned'"),
    "a key less": (lambda victim: swapped('"seed": 0,', "")(victim), "seed"),
    "private path": (part(machine={"software": {"os": "Linux /home/me"}}), "private path or key"),
    # questions
    "missing sample": (rows(lambda found: found[1:]), "it has 7 rows, its document says 8"),
    "extra sample": (rows(lambda found: [*found, {**found[0], "sample_id": "x", "position": 8}]), "it has 9 rows"),
    "sample twice": (rows(lambda found: [*found[1:], found[1]]), "1 of its sample ids stand twice"),
    "order": (rows(lambda found: [{**row, "position": 7 - row["position"]} for row in found]), "spec.sample_ids"),
    "rows of nobody": (rows(lambda found: [{**row, "run_id": SQL} for row in found]), "rows are of no run here"),
    "a run less": (own_gone, "it should be named reference-a-reference-"),
    "rows of another document": (part(samples={"sha256": "0" * 64}), "samples.sha256 differs"),
    # controls
    "no controls": (part(controls={"random": []}), "it names no random run at its budget"),
    "controls that are not there": (controls_gone, "is not among the submissions"),
    "random as no pruning": (full_is_random, "is a run of random"),
    # names that are code elsewhere
    "HTML as a method": (spec(method=HTML), "spec.method should match"),
    "SQL as a preset": (spec(preset=SQL), "spec.preset should match"),
    "HTML in a message": (figures(indicative_because=HTML), "figures.indicative_because should match"),
    "traversal as an id": (part(run_id="../../../tmp/x"), "run_id should match"),
    "traversal as a method": (spec(method="./../../evil.py"), "spec.method should match"),
    "absolute method": (spec(method="/root/evil.py"), "spec.method should match"),
    "line break in a name": (spec(preset="a\n"), "spec.preset should match"),
    "half a letter": (text(b'{"run_id": "\\ud800"}'), "half a letter stands alone"),
    # files
    "empty document": (text(b""), "it is no JSON"),
    "not UTF-8": (text(b'{"run_id": "\xff"}'), "it is not UTF-8"),
    "NaN": (swapped('"accuracy": 0.875', '"accuracy": NaN'), "NaN is no JSON number"),
    "Infinity": (swapped('"accuracy": 0.875', '"accuracy": -Infinity'), "-Infinity is no JSON number"),
    "overflowing number": (swapped('"accuracy": 0.875', '"accuracy": 1e999'), "should be number or null, got inf"),
    "huge whole number": (swapped('"accuracy": 0.875', f'"accuracy": 1{"0" * 5000}'), "it is no JSON"),
    "deep nesting": (text(b"[" * 60_000), "nested too deep"),
    "a key twice": (swapped('"schema_version": 1', '"schema_version": 1, "schema_version": 1'), "stands twice"),
    "large document": (text(b'"' + b"x" * 70_000 + b'"'), "70002 bytes, at most 65536"),
    "pickle as Parquet": (parquet(PICKLE), "is no Parquet file"),
    "pickle dressed as Parquet": (parquet(b"PAR1" + PICKLE + b"\x10\x00\x00\x00PAR1"), "cannot be read as Parquet"),
    "no samples": (lambda victim: victim.samples.unlink(), "is missing, or is no plain file"),
    "empty samples": (parquet(b""), "is no Parquet file"),
    "huge samples": (huge, "17825792 bytes, at most 16777216"),
    "text as scores": (from_sql("SELECT * REPLACE (score::VARCHAR AS score) FROM OLD"), "score is VARCHAR"),
    "another column": (from_sql("SELECT *, 1 AS html FROM OLD"), "html is INTEGER"),
    "nested column": (
        from_sql("SELECT * REPLACE ([[prediction]] AS prediction) FROM OLD"),
        "prediction is VARCHAR[][]",
    ),
    "empty cells": (from_sql("SELECT * REPLACE (NULL::VARCHAR AS cluster) FROM OLD"), "32 empty cells"),
    "long answers": (from_sql("SELECT * REPLACE (repeat('x', 9000) AS prediction) FROM OLD"), "the longest 9000"),
    "bomb of repeated text": (
        from_sql("SELECT o.* REPLACE (repeat('x', 8000) AS prediction) FROM OLD o, range(3000)"),
        "bytes of text",
    ),
    "linked document": (linked("document"), "links and folders are refused"),
    "linked samples": (linked("samples"), "links and folders are refused"),
    "linked batch": (linked("batch"), "only folders named like"),
    "script in a batch": (stranger("BATCH/run.sh"), "holds RUN.json, what verify adds"),
    "script beside": (stranger("evil.sh"), "only folders named like"),
    "page beside": (stranger(f"{HTML}/0123456789abcdef.json"), "only folders named like"),
    "hidden traversal": (stranger("BATCH/..%2f..%2fevil.json", b"{}"), "holds RUN.json"),
    "batch of nothing": (stranger("empty/samples.parquet", b""), "it holds no run that can be read"),
    "submitted twice": (copied, "it was submitted before"),
    # verifications
    "verification of other rows": (verified(samples_sha256="0" * 64), "it verifies other rows"),
    "verification in words": (verified(agreed="yes"), "agreed should be boolean"),
    # notes of code and retirements
    "note of other rows": (reidentified(samples_sha256="0" * 64), "the questions of other rows"),
    "note of another code": (reidentified(code="0" * 16), "not of the one it is named for"),
    "note of another run": (reidentified("0" * 16 + ".{code}.code.json"), "not of the one it is named for"),
    "note of no run": (reidentified("0" * 16 + ".{code}.code.json", run_id="0" * 16), "speaks of no run"),
    "note that disagrees": (reidentified(same_answers=7), "that is a retirement, not a note"),
    "note of chosen questions": (reidentified(seed=1), "are not those that seed 1 draws"),
    "note of few questions": (
        reidentified(sample_ids=["read-0"], repeated=1, same_answers=1, same_tokens=1),
        "at least 8 are needed",
    ),
    "note that counts otherwise": (
        reidentified(repeated=50, same_answers=50, same_tokens=50),
        "counts are not of the 8",
    ),
    "note with a secret": (reidentified(comment="<script>"), "has the unknown key 'comment'"),
    "note named in capitals": (reidentified("{run}.C0DE.code.json"), "what verify adds"),
    "retirement that agrees": (reidentified(RETIRED), "that retires nothing"),
    "retirement of other rows": (reidentified(RETIRED, samples_sha256="0" * 64, same_answers=0), "of other rows"),
    "retirement of chosen questions": (reidentified(RETIRED, seed=3, same_answers=7), "not those that seed 3 draws"),
    # papers' numbers
    "published number": (
        lambda victim: (victim.results / "published").mkdir() or (victim.results / "published/x.csv").write_text("1"),
        "published/x.csv: it is not listed",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_with_its_reason_and_nothing_else_happens(name: str, victim: Victim):
    spoil, reason = HOSTILE[name]
    spoil(victim)
    before = snapshot(victim.results.parent)
    found = check_results(victim.results / "submissions")
    told = [str(problem) for problem in found.problems]
    assert any(reason in words for words in told), told
    assert not any("\n" in words for words in told)
    board = read(victim.results, lambda words: None)
    assert {row["provenance"] for row in board.rows} <= {"self-reported"}
    try:
        board.samples(columns=SAMPLE_COLUMNS)
    except (HarnessError, ValueError) as problem:
        assert str(problem)
    assert snapshot(victim.results.parent) == before and not OWNED.exists()


def test_a_good_batch_passes_and_a_forger_who_names_it_well_does_not(victim: Victim):
    assert check_results(victim.results / "submissions").problems == []
    cells(score=1.0)(victim)
    settled = replace(victim, batch=victim.settle())
    told = [str(problem) for problem in check_results(settled.results / "submissions").problems]
    assert any("1 scores are not what the answers score by the rule of reference" in words for words in told)
    assert all(words.startswith(f"{settled.batch.name}/{victim.own}.json: ") for words in told), told


@pytest.fixture
def committed(victim: Victim) -> Victim:
    """The same results in a git repository, whose HEAD holds them."""
    git(victim, "init", "-q")
    git(victim, "add", ".")
    git(victim, "commit", "-q", "-m", "A first batch")
    return victim


def git(victim: Victim, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "core.autocrlf=false"]
    subprocess.run(["git", "-C", str(victim.results.parent), *who, *words], check=True, capture_output=True)


EDITED: dict[str, tuple[Callable[[Victim], Any], str]] = {
    "edited": (lambda victim: victim.document.write_bytes(victim.document.read_bytes() + b"\n"), "it was edited"),
    "deleted": (lambda victim: victim.document.unlink(), "it is gone"),
    "swapped samples": (lambda victim: forge(victim.batch, victim.own, score=1.0), "samples.parquet: it was edited"),
    "renamed": (lambda victim: victim.batch.rename(victim.batch.with_name("other")), "it is gone"),
    "verified by its own author": (
        lambda victim: (copied(victim), verified()(replace(victim, batch=victim.batch.with_name("copy")))),
        "does not bring its own verification",
    ),
    "made current by its own author": (
        lambda victim: (copied(victim), reidentified()(replace(victim, batch=victim.batch.with_name("copy")))),
        "does not bring its own verification",
    ),
}


@pytest.mark.parametrize("name", EDITED)
def test_what_was_submitted_earlier_cannot_be_changed(name: str, committed: Victim):
    assert check_results(committed.results / "submissions").problems == []
    spoil, reason = EDITED[name]
    spoil(committed)
    told = [str(problem) for problem in check_results(committed.results / "submissions").problems]
    assert any(reason in words for words in told), told


def test_a_later_verification_is_welcome_and_the_base_may_be_another_commit(committed: Victim):
    for add in (verified(), reidentified(), reidentified(RETIRED, same_tokens=7)):
        add(committed)
        found = check_results(committed.results / "submissions")
        assert found.problems == []
    assert found.retired == 1
    git(committed, "add", ".")
    git(committed, "commit", "-q", "-m", "Repeat a run")
    reidentified(machine_id="1" * 16)(committed)
    assert [str(problem) for problem in check_results(committed.results / "submissions").problems] == [
        f"{committed.batch.name}/{committed.own}.{CODE}.code.json: it was edited; what was submitted stays: submit a "
        "new run instead"
    ]
    reidentified()(committed)
    committed.document.unlink()
    git(committed, "commit", "-q", "-a", "-m", "Hide a run")
    found = check_results(committed.results / "submissions", base="HEAD~1")
    assert any("it is gone" in str(problem) for problem in found.problems)
    with pytest.raises(HarnessError, match="git knows no commit"):
        check_results(committed.results / "submissions", base="nowhere")


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder with its content, links by their target."""
    return {
        str(path): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }
