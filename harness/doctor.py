"""Is this machine fit to run the harness? One finding a check; nothing is changed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from harness.benchmarks import EMBEDDED_SUITES, open_benchmark
from harness.integrations.lmms_eval import installed
from harness.models.loading import open_model
from harness.models.registry import EMBEDDED
from harness.records.errors import HarnessError
from harness.store.database import Store

AMISS, MISSING, POOR = "amiss", "missing", "poor"


@dataclass(frozen=True)
class MachineCheck:
    """Result of one check. fit: it works; advice: what to do where it does not.

    lack: what it is called where it does not: "amiss" (needed: the harness cannot be used like this), "missing" or
    "poor" (the harness works without it).
    """

    name: str
    fit: bool
    found: str
    advice: str = ""
    lack: str = AMISS

    @property
    def state(self) -> str:
        return "works" if self.fit else self.lack


@dataclass(frozen=True)
class Extra:
    """Optional packages: what they are for, and the command that installs them."""

    name: str
    packages: tuple[str, ...]
    purpose: str
    command: str

    def check(self) -> MachineCheck:
        absent = [package for package in self.packages if find_spec(package) is None]
        return MachineCheck(self.name, not absent, self.purpose, self.command, MISSING)


def install(extra: str) -> str:
    """The command for one of our extras."""
    return f'pip install "visual-token-pruning[{extra}]"'


FLASH = "pip install flash-attn --no-build-isolation"
EXTRAS = (
    Extra("flash attention", ("flash_attn",), "--attention flash_attention_2, on an accelerator", FLASH),
    Extra("profile", ("tensorboard", "torch_tb_profiler"), "TensorBoard's view of --profile", install("profile")),
    Extra("benchmarks", ("datasets",), "published benchmarks from the hub", install("benchmarks")),
    Extra("board", ("streamlit", "plotly"), "the leaderboard", install("board")),
    Extra("ray", ("ray",), "runs spread by Ray", install("ray")),
)


def extras() -> Iterator[MachineCheck]:
    """Which optional packages are there."""
    for extra in EXTRAS:
        yield extra.check()


def accelerator() -> MachineCheck:
    """Devices of this machine."""
    from harness.latency.machine import machine

    here = machine()
    gpus = [f"{gpu['name']} {gpu['memory_gib']} GiB" for gpu in here.hardware["gpus"]]
    found = ", ".join(gpus) or f"{here.software['threads']} threads on {here.hardware['cpu']}"
    advice = "without one timings are indicative; on a machine with a GPU install torch's build for it"
    return MachineCheck("accelerator", bool(gpus), found, advice, MISSING)


def nvml() -> MachineCheck:
    """Whether the GPU's clocks, temperature, throttling and energy can be read."""
    from harness.latency.machine import device_state

    state = device_state()
    found = "clocks, temperature, throttling and energy of a GPU"
    if state is not None:
        found = f"{state.sm_clock_mhz} MHz, {state.temperature_c} °C, throttle bits {state.throttle_bits}"
    return MachineCheck("NVML", state is not None, found, f"on NVIDIA GPUs: {install('gpu')}", MISSING)


def latency(seconds: float) -> MachineCheck:
    """Equal arms, timed as every run is. Raises HarnessError where the embedded model cannot be opened."""
    import torch

    from harness.latency.selftest import self_test

    current = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    trust = self_test(current.type if current is not None else "cpu", seconds)
    advice = "end other work on this machine, and time several sessions: --sessions 5"
    return MachineCheck("latency", trust.is_good, str(trust), advice, POOR)


GIB = 1024**3
LEAST_FREE_BYTES = GIB
VERSIONS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "torch": ((2, 6), (3,), "device events and the attention registry"),
    "transformers": ((5, 18), (6,), "the staged path is proven on these"),
    "duckdb": ((1, 5), (2,), "2.0.0 loses rows when processes take turns"),
}
REINSTALL = "reinstall the package, or run `git checkout .` in a clone"
WATCHED = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE", "PYTORCH_CUDA_ALLOC_CONF")


def examine(store: Store, self_test_seconds: float | None = None) -> Iterator[MachineCheck]:
    """Every finding, cheapest first; last, where a time is given, how far latency can be trusted here."""
    yield _python()
    for package, bounds in VERSIONS.items():
        yield _package(package, *bounds)
    yield accelerator()
    yield nvml()
    yield from extras()
    yield lmms_eval()
    yield _variables()
    yield _disk(store.path)
    yield _checked("store", "harness db rebuild, or give another --store", lambda: _store(store))
    for name in EMBEDDED:
        yield _checked(f"model {name}", REINSTALL, partial(_model, name))
    for name in EMBEDDED_SUITES:
        yield _checked(f"benchmark {name}", REINSTALL, partial(_benchmark, name))
    if self_test_seconds is not None:
        yield _checked("latency", REINSTALL, partial(latency, self_test_seconds))


def _checked(name: str, advice: str, check: Callable[[], str | MachineCheck]) -> MachineCheck:
    try:
        found = check()
        return found if isinstance(found, MachineCheck) else MachineCheck(name, True, found)
    except HarnessError as error:
        return MachineCheck(name, False, str(error), advice)


def _python() -> MachineCheck:
    found = ".".join(map(str, sys.version_info[:3]))
    return MachineCheck("python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _package(package: str, least: tuple[int, ...], below: tuple[int, ...], why: str) -> MachineCheck:
    wanted = f"{'.'.join(map(str, least))} <= {package} < {'.'.join(map(str, below))}: {why}"
    try:
        found = version(package)
    except PackageNotFoundError:
        return MachineCheck(package, False, "not installed", wanted)
    numbers = tuple(int(part) for part in found.split("+")[0].split(".")[:2] if part.isdigit())
    return MachineCheck(package, least <= numbers < below, found, wanted)


def lmms_eval() -> MachineCheck:
    """lmms-eval for benchmarks `lmms:TASK`, and what it lacks."""
    here, absent = installed.found_version(), installed.absent()
    found = f"version {here}, proven {installed.VERSION}" if here else "for --benchmark lmms:TASK"
    lacks = f"; not here: {', '.join(absent)}" if absent else ""
    fit = here == installed.VERSION and not absent
    return MachineCheck("lmms-eval", fit, found + lacks, " && ".join(installed.LINES), MISSING)


def _variables() -> MachineCheck:
    found = [f"{name}={os.environ[name]}" for name in WATCHED if name in os.environ]
    return MachineCheck("environment", True, ", ".join(found) or "nothing set that matters")


def _disk(store: Path) -> MachineCheck:
    folder = next(parent for parent in store.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    return MachineCheck("disk", free >= LEAST_FREE_BYTES, f"{free / GIB:.1f} GiB free at {folder}", "free some space")


def _store(store: Store) -> str:
    return f"{store.path}: {len(store.runs())} runs, logs in {store.log_folder}"


def _model(name: str) -> str:
    opened = open_model(name)
    count = sum(parameter.numel() for parameter in opened.model.parameters())
    return f"{count / 1e6:.1f} M parameters, revision {opened.revision[:12]}"


def _benchmark(name: str) -> str:
    benchmark = open_benchmark(name)
    seen = {sample.images[0]: sample for sample in benchmark.samples}
    for sample in seen.values():
        benchmark.load_image(sample, 0)
    return f"{len(benchmark.samples)} questions on {len(seen)} images, revision {benchmark.revision[:12]}"
