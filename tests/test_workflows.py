"""Continuous integration: what runs on a stranger's change holds no secret and can write nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from harness.submissions.git_checks import published_problems

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_both_workflows_are_there():
    assert {path.name for path in FILES} >= {"tests.yml", "results.yml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_is_harmless(path: Path):
    text = path.read_text()
    workflow = yaml.safe_load(text)
    events = workflow[True]  # YAML reads the key `on` as a truth value
    assert set(events) <= {"push", "pull_request", "schedule", "workflow_dispatch"}, "never pull_request_target"
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text and all("permissions" not in job for job in workflow["jobs"].values())
    assert all(job["timeout-minutes"] <= 360 for job in workflow["jobs"].values())
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", step["uses"]), step
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
        assert "${{" not in step.get("run", ""), "a stranger's text must not become a command"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_runs_make_targets_only(path: Path):
    commands = [step["run"] for step in steps(yaml.safe_load(path.read_text())) if "run" in step]
    assert commands
    for command in commands:
        made = re.match(r"make (?:-C trusted )?([\w-]+)", command)
        assert made and made.group(1) in TARGETS, command


def test_results_are_judged_by_the_code_of_the_base():
    workflow = yaml.safe_load((ROOT / ".github/workflows/results.yml").read_text())
    trusted, proposed, _, judging = steps(workflow)
    assert trusted["with"]["path"] == "trusted" and "base.sha" in trusted["with"]["ref"]
    assert proposed["with"] == {"path": "proposed", "fetch-depth": 0, "persist-credentials": False}
    assert judging["run"].startswith("make -C trusted validate-results") and "proposed/results" in judging["run"]


def test_the_papers_numbers_are_those_of_their_checksums():
    assert list(published_problems(ROOT / "results" / "published")) == []
