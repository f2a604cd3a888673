"""`harness run --profile DIR`, `harness profile show DIR`, and TensorBoard's own view of the folder."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch
from commands import Command, commands_over

from harness.latency.clock import PerfCounterBackend, StageClock
from harness.latency.profiler import profile_arms

PATIENCE_S = 60


@pytest.fixture
def harness(
    suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return commands_over(suite_folder, tmp_path, monkeypatch, capsys)


def product(clock: Any) -> None:
    with clock.stage("vit"):
        torch.ones(8, 8) @ torch.ones(8, 8)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The profile of a product of two matrices."""
    facts = {"title": "a product", "shape_key": "1x1+1"}
    profile_arms({"base": product, "pruned": product}, tmp_path / "small", StageClock(PerfCounterBackend()), facts)
    return tmp_path / "small"


def test_a_run_is_profiled_on_request(harness: Command, tmp_path: Path):
    traces = tmp_path / "traces"
    said = harness("run", "--method", "divprune", "--limit", "1", "--no-timing", "--profile", str(traces))
    assert said.code == 0, said.err
    assert f"next: harness profile show {traces}" in said.err
    shown = harness("profile", "show", str(traces), "--top", "3", "--json").document
    assert shown["title"] == "divprune at 50%" and shown["shape_key"] == "3x4+10"
    for arm in ("base", "pruned"):
        stages = {row["stage"]: row for row in shown["stages"][arm]}
        assert list(stages) == ["vit", "projector", "select", "llm", "residual", "total"]
        assert stages["vit"]["ms"] > 0 and stages["llm"]["ms"] > 0
        assert sum(row["traced_ms"] for name, row in stages.items() if name != "total") == pytest.approx(
            stages["total"]["traced_ms"], rel=0.2
        )  # medians, one by one
        assert len(shown["operators"][arm]) == 3
    pruned = {row["stage"]: row for row in shown["stages"]["pruned"]}
    assert pruned["select"]["traced_ms"] > 0


def test_a_profile_is_a_table_for_people(harness: Command, small: Path):
    said = harness("profile", "show", str(small))
    assert said.code == 0 and "residual" in said.out and "aten::mm" in said.out
    assert "perfetto" in said.err and "tensorboard --logdir" in said.err


def test_a_folder_without_a_profile_is_a_usage_error(harness: Command, tmp_path: Path):
    said = harness("profile", "show", str(tmp_path))
    assert said.code == 2 and "harness run --method NAME --profile" in said.complaint
    (tmp_path / "profile.json").write_text(
        json.dumps({"traces": {"base": ["1.pt.trace.json"]}, "measured_ms": {}, "title": "", "shape_key": ""})
    )
    said = harness("profile", "show", str(tmp_path))
    assert said.code == 2 and "1.pt.trace.json" in said.complaint and "make it again" in said.complaint


@pytest.mark.proof
@pytest.mark.skipif(
    find_spec("torch_tb_profiler") is None or find_spec("tensorboard") is None,
    reason='needs pip install "visual-token-pruning[profile]"',
)
def test_tensorboard_lists_both_arms(small: Path):
    with tensorboard(small) as url:
        runs = awaited(f"{url}/data/plugin/pytorch_profiler/runs", lambda found: len(found["runs"]) == 2)
        assert sorted(runs["runs"]) == ["base", "pruned"]
        assert read(f"{url}/data/plugins_listing")["pytorch_profiler"]["enabled"]
        assert "Overview" in read(f"{url}/data/plugin/pytorch_profiler/views?run=pruned")


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """A server on loopback, ended by its own process when the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def read(url: str) -> object:
    with urlopen(url, timeout=PATIENCE_S) as answer:
        return json.loads(answer.read())


def awaited(url: str, ready) -> dict:
    """The document once it is ready: asked again until then, each time as soon as the server answers."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            found = read(url)
        except URLError:
            continue
        if ready(found):
            return found
    raise AssertionError(f"{url} was not ready within {PATIENCE_S} s")
