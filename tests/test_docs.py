"""What the README and CONTRIBUTING promise can be typed, and the code in them runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command

from harness.cli import app
from harness.models.loading import OpenModel

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "results/README.md"])


def blocks(text: str, language: str) -> list[str]:
    """Fenced code blocks of a language ("" for none)."""
    return [body for kind, body in re.findall(r"```(\w*)\n(.*?)```", text, flags=re.S) if kind == language]


def commands() -> list[str]:
    """Every `harness ...` line of the README's blocks, and those in the text of all documents."""
    typed = [line.split(" #")[0].strip() for block in blocks(README, "") for line in block.splitlines()]
    quoted = [code for path in DOCUMENTS for code in re.findall(r"`(harness [a-z][^`\n]*)`", path.read_text())]
    return sorted({line for line in typed + quoted if line.startswith("harness ")})


def test_there_are_commands_to_check():
    assert len(commands()) >= 8


@pytest.mark.parametrize("line", commands())
def test_a_command_in_the_documents_can_be_parsed(line: str):
    filled = line.replace("...", "").replace("RUN", "abc").replace("FOLDER", str(ROOT))
    command, words = get_command(app), shlex.split(filled)[1:]
    context = command.make_context("harness", words)
    while hasattr(command, "commands"):  # groups of verbs
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(name, words, parent=context)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = {word for path in DOCUMENTS for word in re.findall(r"(?:^|`)make ([\w-]+)", path.read_text(), flags=re.M)}
    assert {"run", "test", "proofs"} <= targets and named & {"run", "test"} and named - {"sure"} <= targets


def test_every_method_of_the_readme_exists():
    import methods

    table = README.split("| method |")[1].split("\n\n")[0]
    named = {name for row in re.findall(r"^\| ([a-z, ]+) \|", table, flags=re.M) for name in row.split(", ")}
    assert named and named <= set(methods.names())


def test_the_method_of_the_readme_prunes_and_the_snippet_runs(
    reference_a: OpenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    prune_it, method = blocks(README, "python")
    (tmp_path / "largest_norm.py").write_text(method)
    model, processor = reference_a.family.model, reference_a.processor
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "how many stars?"}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    inputs = processor(images=[Image.new("RGB", (128, 96))], text=[text], return_tensors="pt")
    import harness

    monkeypatch.setattr(harness, "load", lambda path: path, raising=False)
    for source in (prune_it, prune_it.replace('"fastv"', repr(str(tmp_path / "largest_norm.py")))):
        scope = {"model": model, "processor": processor, "inputs": inputs}
        exec(source, scope)
        assert isinstance(scope["text"], str)
