"""What the harness can do without, and how to get it: accelerator, NVML, extras, a machine quiet enough to time on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

AMISS, MISSING, POOR = "amiss", "missing", "poor"


@dataclass(frozen=True)
class Finding:
    """What one check found. fit: it works; advice: what to do where it does not.

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

    def finding(self) -> Finding:
        absent = [package for package in self.packages if find_spec(package) is None]
        return Finding(self.name, not absent, self.purpose, self.command, MISSING)


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


def extras() -> Iterator[Finding]:
    """Which optional packages are there."""
    for extra in EXTRAS:
        yield extra.finding()


def accelerator() -> Finding:
    """What computes here."""
    from harness.latency.machine import machine

    here = machine()
    gpus = [f"{gpu['name']} {gpu['memory_gib']} GiB" for gpu in here.hardware["gpus"]]
    found = ", ".join(gpus) or f"{here.software['threads']} threads on {here.hardware['cpu']}"
    advice = "without one timings are indicative; on a machine with a GPU install torch's build for it"
    return Finding("accelerator", bool(gpus), found, advice, MISSING)


def nvml() -> Finding:
    """Whether the GPU's clocks, temperature, throttling and energy can be read."""
    from harness.latency.machine import device_state

    state = device_state()
    found = "clocks, temperature, throttling and energy of a GPU"
    if state is not None:
        found = f"{state.sm_clock_mhz} MHz, {state.temperature_c} °C, throttle bits {state.throttle_bits}"
    return Finding("NVML", state is not None, found, f"on NVIDIA GPUs: {install('gpu')}", MISSING)


def latency(seconds: float) -> Finding:
    """Equal arms, timed as every run is. Raises HarnessError where the embedded model cannot be opened."""
    import torch

    from harness.latency.selftest import self_test

    current = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    trust = self_test(current.type if current is not None else "cpu", seconds)
    advice = "end other work on this machine, and time several sessions: --sessions 5"
    return Finding("latency", trust.is_good, str(trust), advice, POOR)
