"""Runs of older code stay current where today's code gives their answers, and are retired where it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from commands import Command, commands_over
from hand_submissions import forge

from harness.integrations.lmms_eval import opening as lmms_opening
from harness.models.loading import OpenModel
from harness.records.provenance import GitState, current_code
from harness.run import runner
from harness.submissions import read
from harness.submissions.safe_json import schema, violations

OLDER = "0" * 16


@pytest.fixture
def harness(
    reference_a: OpenModel,
    suite_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """The command in an empty folder, on eight questions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "git_state", lambda: GitState(None, None))
    monkeypatch.setattr(lmms_opening, "open_model", lambda name, **settings: reference_a)
    return commands_over(suite_folder, tmp_path, monkeypatch, capsys)


@pytest.fixture
def batch(harness: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A batch of older code: grid, its random run, no pruning."""
    with monkeypatch.context() as then:
        then.setattr("harness.request.request.code_of", lambda *words: OLDER)
        then.setattr("harness.store.database.current_code", lambda *words: OLDER)
        assert harness("run", "--method", "grid", "--benchmark", "reference", "--no-timing").code == 0
        assert harness("submit", "grid").code == 0
    (folder,) = Path("results/submissions").iterdir()
    yield folder


def rows() -> dict[str, Any]:
    return {row["method"]: row for row in read(Path("results")).rows}


def test_a_note_makes_a_run_current_and_nothing_that_was_submitted_changes(harness: Command, batch: Path):
    before = {path: path.read_bytes() for path in batch.iterdir()}
    assert {row["stale"] for row in rows().values()} == {True}
    ids = {method: row["run_id"] for method, row in rows().items()}

    said = harness("verify", "results", "--reidentify", "--part", "1/2")
    assert said.code == 0 and "2 runs are current again, 0 retired, 0 stay stale" in said.complaint
    said = harness("verify", "results", "--reidentify", "--part", "2/2", "--json")
    assert said.code == 0 and len(said.document) == 1
    assert "8 answers, 8 token counts and 8 FLOPs of 8 are the same" in said.err
    assert "0 runs are current again" in harness("verify", str(batch), "--reidentify").complaint, "it is done"

    assert {path: path.read_bytes() for path in before} == before
    assert {method: row["run_id"] for method, row in rows().items()} == ids
    assert {row["stale"] for row in rows().values()} == {False}
    today = current_code("grid", "reference-a", "reference")
    note = json.loads((batch / f"{ids['grid']}.{today}.code.json").read_text())
    assert (note["code"], note["repeated"], note["seed"], len(set(note["sample_ids"]))) == (today, 8, 0, 8)
    rules = schema("reidentification")
    jsonschema.Draft202012Validator.check_schema(rules)
    assert jsonschema.Draft202012Validator(rules).is_valid(note) and not list(violations(note, rules, rules))
    assert harness("validate", "results").code == 0


def test_a_note_of_code_that_has_changed_again_is_superseded(
    harness: Command, batch: Path, monkeypatch: pytest.MonkeyPatch
):
    assert harness("verify", "results", "--reidentify").code == 0
    newer = "1" * 16
    monkeypatch.setattr("harness.request.request.code_of", lambda *words: newer)
    for place in ("reading", "reidentifying"):
        monkeypatch.setattr(f"harness.submissions.{place}.current_code", lambda *words: newer)
    assert {row["stale"] for row in rows().values()} == {True}
    assert "3 runs are current again" in harness("verify", "results", "--reidentify").complaint
    assert {row["stale"] for row in rows().values()} == {False}
    assert len(list(batch.glob("*.code.json"))) == 6 and harness("validate", "results").code == 0


def test_a_run_that_is_answered_otherwise_is_retired_and_not_shown(harness: Command, batch: Path):
    grid = rows()["grid"]["run_id"]
    forge(batch, grid, prediction="forged", score=0.0)
    said = harness("verify", str(batch / f"{grid}.json"), "--reidentify")
    assert said.code == 1 and "RETIRED; 0 answers, 8 token counts" in said.err and "stated 'forged' (0)" in said.err
    assert (batch / f"{grid}.retirement.json").is_file() and (batch / f"{grid}.json").is_file()
    told: list[str] = []
    assert "grid" not in {row["method"] for row in read(Path("results"), told.append).rows}
    assert "1 submitted runs are retired" in told[0]
    assert "2 runs are current again, 0 retired" in harness("verify", "results", "--reidentify").complaint
    said = harness("validate", "results", "--json")
    assert said.document["retired"] == 1 and "3 runs (1 retired) in 1 batches" in said.err


def test_a_run_that_cannot_be_answered_here_stays_stale_and_the_others_go_on(
    harness: Command, batch: Path, monkeypatch: pytest.MonkeyPatch
):
    run_id = rows()["grid"]["run_id"]
    document = json.loads((batch / f"{run_id}.json").read_text())
    document["spec"]["settings"] = {"gone": 1}
    (batch / f"{run_id}.json").write_text(json.dumps(document))
    said = harness("verify", "results", "--reidentify")
    assert said.code == 1 and "2 runs are current again, 0 retired, 1 stay stale" in said.complaint
    assert "has no setting 'gone'" in said.err and not list(batch.glob("*.retirement.json"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--part", "3/2"), "--part takes K/N"),
        (("--samples", "20"), "at least 50"),
        (("--device", "cuda"), "leave out"),
    ],
)
def test_what_cannot_be_reidentified_is_said(harness: Command, words: tuple[str, str], why: str):
    Path("results/submissions").mkdir(parents=True)
    assert why in harness("verify", "results", "--reidentify", *words).complaint
