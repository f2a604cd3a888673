"""`harness new`: two files that work as they are, and nothing that was there is touched."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest
from commands import Command, commands_in

import methods
from harness.authoring import HOOKS, Scaffold, write
from harness.cli.new import Hook
from harness.records.errors import UsageError
from harness.validate.contract import check_method
from harness.validate.tiny import TINY
from methods import base


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    return commands_in(tmp_path, monkeypatch, capsys)


def failures(path: Path, family: str) -> dict[str, str]:
    results = list(check_method(methods.build(str(path)), family))
    assert results
    return {result.check: result.detail for result in results if result.status == "fail"}


def test_the_hooks_are_those_of_methods():
    assert set(HOOKS) == set(base.HOOKS) == {hook.value for hook in Hook}


@pytest.mark.parametrize("hook", HOOKS)
def test_every_template_is_short_acts_at_its_hook_and_keeps_the_contract(hook: str, tmp_path: Path):
    method, test = write(Scaffold("my_method", hook, tmp_path))
    assert len(method.read_text().splitlines()) <= 60
    kind = methods.get(str(method))
    assert (kind.name, kind.hooks, kind.__name__) == ("my_method", (hook,), "MyMethod")
    assert ast.get_docstring(ast.parse(test.read_text()))
    assert failures(method, "qwen3_vl") == {}


@pytest.mark.proof
@pytest.mark.parametrize("family", sorted(TINY))
@pytest.mark.parametrize("hook", HOOKS)
def test_every_template_keeps_the_contract_on_every_family(hook: str, family: str, tmp_path: Path):
    method, _ = write(Scaffold("my_method", hook, tmp_path))
    assert failures(method, family) == {}


def test_the_test_that_is_written_passes_and_fails_with_its_method(tmp_path: Path):
    method, test = write(Scaffold("other", "interface", tmp_path))
    claim = runpy.run_path(str(test))["test_other_keeps_the_contract"]
    claim()
    method.write_text(method.read_text().replace("top_k(score, view.keep)", "top_k(score, view.keep)[1:]"))
    with pytest.raises(AssertionError, match="exact budget"):
        claim()


def test_new_prints_both_files_and_what_to_type_next(harness: Command, tmp_path: Path):
    said = harness("new", "demo")
    assert said.code == 0 and said.out.split() == ["demo.py", "test_demo.py"]
    for words in ("harness validate ./demo.py", "harness run --method ./demo.py", "harness submit RUN"):
        assert words in said.err
    assert harness("new", "demo", "--hook", "in-llm", "--out", "sub/folder").code == 0
    assert "IN_LLM" in (tmp_path / "sub/folder/demo.py").read_text()


@pytest.mark.parametrize("there", ["demo.py", "test_demo.py"])
def test_nothing_is_overwritten_and_nothing_written_by_half(harness: Command, tmp_path: Path, there: str):
    (tmp_path / there).symlink_to("nowhere")
    said = harness("new", "demo")
    assert said.code == 2 and f"{there} exists" in said.complaint
    assert [path.name for path in tmp_path.iterdir()] == [there]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x", "small letters"), ("Demo", "small letters"), ("a__b", "small letters"), ("9x", "small letters"),
        ("x" * 41, "at most 40"), ("", "small letters"), ("class", "word of Python"), ("match", "word of Python"),
        ("fastv", "one of our methods"), ("base", "one of our methods"), ("torch", "would hide"),
        ("json", "would hide"), ("test_x", "names a test"),
    ],
)  # fmt: skip
def test_a_name_that_would_do_harm_is_refused_with_the_reason(harness: Command, tmp_path: Path, name: str, reason: str):
    said = harness("new", name)
    assert said.code == 2 and reason in said.complaint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_in_words(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match="choose a folder with --out") as caught:
        write(Scaffold("demo", "interface", tmp_path / "file"))
    assert not isinstance(caught.value, UsageError)
