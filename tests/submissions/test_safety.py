"""What comes from elsewhere is data, never code; and what goes into a record names no user and no secret."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command, commands_over
from logged_runs import HERE, SPEC
from PIL import Image

from harness.adapter_training.examples import _from_file
from harness.authoring import Scaffold, write
from harness.latency.machine import machine
from harness.models.loading import open_model
from harness.records.errors import CorruptCheckpoint, HarnessError, UndecodableImage
from harness.records.figures import ERROR, Figures
from harness.records.provenance import recorded_method, without_home
from harness.reference.paths import MODEL_A
from harness.store.log_writer import RunLog

ROOT = Path(__file__).resolve().parents[2]
HOME = Path("/home/ann")


@pytest.mark.parametrize(
    ("said", "kept"),
    [("/home/ann/a.py", "~/a.py"), ("/home/ann", "~"), ("no file /home/ann/x, sorry", "no file ~/x, sorry"),
     ("/home/anna/a.py", "/home/anna/a.py"), ("/data/home/ann/a", "/data/home/ann/a"), ("fastv", "fastv"),
     ({"clip": "/home/ann/clip", "k": 2}, {"clip": "~/clip", "k": 2}), (["/home/ann/a", None], ["~/a", None])],
)  # fmt: skip
def test_a_home_folder_becomes_a_tilde_and_nothing_else_does(said: object, kept: object):
    assert without_home(said, HOME) == kept
    assert without_home(said, Path("/")) == said


def test_a_method_file_is_recorded_by_its_shortest_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for typed in ("a.py", "./a.py", str(tmp_path / "work/a.py")):
        assert recorded_method(typed) == "./a.py"
    assert recorded_method(f"{tmp_path}/b.py:Mine") == "~/b.py:Mine"
    assert recorded_method("/opt/b.py") == "/opt/b.py" and recorded_method("fastv:k3") == "fastv:k3"


def test_no_record_names_the_user_or_a_secret(
    suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    home = tmp_path / "home" / "somebody"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    shutil.copytree(suite_folder, home / "questions")
    (home / "questions/images/1.png").write_bytes(b"torn")
    (home / "model").symlink_to(MODEL_A)
    method, _ = write(Scaffold("demo", "interface", home))
    store = tmp_path / "elsewhere"
    store.mkdir()
    harness: Command = commands_over(suite_folder, store, monkeypatch, capsys)
    said = harness(
        "run", "--method", str(method), "--model", str(home / "model"), "--benchmark", str(home / "questions"),
        "--no-timing", "--json",
    )  # fmt: skip
    assert said.code == 0 and said.document["method"] == "~/demo.py"
    written = {path.name: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert any(b"cannot decode" in content for content in written.values())
    for secret in (b"somebody", b"hf_verysecret"):
        assert [name for name, content in written.items() if secret in content] == []
    monkeypatch.chdir(store)
    again = harness("run", "--method", "~/demo.py", "--model", "~/model", "--benchmark", str(home / "questions"),
                    "--no-timing", "--json")  # fmt: skip
    assert again.code == 0 and again.document["run_id"] == said.document["run_id"]  # what a record says can be opened
    quick = ("--image-size", "64", "--pairs", "1", "--minutes", "0.01", "--out", str(store / "timed.json"))
    timed = harness("bench", "--model", str(home / "model"), "--methods", str(method), *quick)
    assert timed.code == 0 and "somebody" not in (store / "timed.json").read_text()
    stale = {row["method"]: row["stale"] for row in harness("list", "runs", "--json").document}
    assert stale == {"full": False, "random": False, "~/demo.py": False}  # its file is found again


def test_the_message_of_a_run_names_no_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/ann")
    path = tmp_path / "run.jsonl"
    with RunLog.open(path, SPEC, HERE) as log:
        log.finish(Figures(ERROR, "no weights in /home/ann/model; is it complete?"))
    assert "no weights in ~/model;" in path.read_text() and "ann/" not in path.read_text()


def test_a_machine_says_neither_its_name_nor_its_user(monkeypatch: pytest.MonkeyPatch):
    import platform

    monkeypatch.setenv("HOME", "/home/ann-example")
    words = json.dumps(machine().facts())
    assert platform.node() == "" or f'"{platform.node()}"' not in words
    assert "/home" not in words and "/root" not in words


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_weights_in_a_pickle_are_refused_unread(tmp_path: Path, name: str):
    folder, canary = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(MODEL_A, folder)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(canary)))
    with pytest.raises(CorruptCheckpoint):
        open_model(folder)
    assert not canary.exists()


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path, file: str):
    folder, canary = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(MODEL_A, folder)
    (folder / "theirs.py").write_text(f"open({str(canary)!r}, 'w')\nclass Theirs: pass\n")
    facts = json.loads((folder / file).read_text())
    names = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoTokenizer")
    facts["auto_map"] = dict.fromkeys(names, "theirs.Theirs")
    (folder / file).write_text(json.dumps(facts))
    try:
        open_model(folder)
    except HarnessError as refused:
        assert str(refused)
    assert not canary.exists()


def test_a_picture_to_train_on_is_capped_like_any_other(tmp_path: Path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    (tmp_path / "rows.jsonl").write_text('{"image": "bomb.png", "question": "q", "answer": "a"}\n')
    with pytest.raises(UndecodableImage, match=r"bomb\.png"):
        next(_from_file(tmp_path / "rows.jsonl", 0))


def calls() -> Iterator[tuple[str, str, dict[str, ast.expr]]]:
    """Every call in our code: file, the name as written, its keywords."""
    for folder in ("harness", "methods", "leaderboard"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    named = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
                    yield str(path.relative_to(ROOT)), ast.unparse(node.func), named


def is_constant(value: ast.expr | None, wanted: bool) -> bool:
    return isinstance(value, ast.Constant) and value.value is wanted


def test_every_loader_says_what_it_must_not_do():
    wrong, seen = [], 0
    for file, name, keywords in calls():
        owner, _, verb = name.rpartition(".")
        if verb == "from_pretrained":
            seen += 1
            if owner.startswith("Auto") and not is_constant(keywords.get("trust_remote_code"), False):
                wrong.append(f"{file}: {name} without trust_remote_code=False")
            weights = "Model" in owner or owner.endswith("ForConditionalGeneration")
            if weights and not is_constant(keywords.get("use_safetensors"), True):
                wrong.append(f"{file}: {name} without use_safetensors=True")
        if name == "torch.load" and not is_constant(keywords.get("weights_only"), True):
            wrong.append(f"{file}: torch.load without weights_only=True")
        if name in ("eval", "exec", "compile", "np.load") and not is_constant(keywords.get("allow_pickle"), False):
            wrong.append(f"{file}: {name}")
        if owner in ("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"):
            wrong.append(f"{file}: {name}")
    assert wrong == [] and seen >= 5
