"""What doctor says of optional parts, and how far it trusts a machine's clock."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from harness.doctor import EXTRAS, Extra, MachineCheck, extras, latency, nvml
from harness.latency.clock import PerfCounterBackend, StageClock
from harness.latency.machine import DeviceState
from harness.latency.selftest import Trust, trust_of

ROOT = Path(__file__).resolve().parent.parent


def trust(noise: Callable[[], float]) -> Trust:
    """Equal arms of 100 ms on a clock that they move themselves."""
    now = [0]

    def run(clock: StageClock) -> None:
        with clock.stage("vit"):
            now[0] += round(1e8 * noise())

    return trust_of(run, StageClock(PerfCounterBackend(lambda: now[0]), lambda: now[0]), seconds=10)


def test_a_quiet_machine_is_trusted_to_its_resolution():
    random = Random(0)
    found = trust(lambda: 1 + random.gauss(0, 0.01))
    assert found.is_good and 0.001 < found.resolution < 0.01
    assert found.summary.pairs > 30
    assert "equal arms differ by" in str(found) and "cannot be told" in str(found)


def test_a_machine_that_scatters_is_not():
    random = Random(0)
    found = trust(lambda: 1 + random.expovariate(1))
    assert found.resolution > 0.05 and not found.is_good


def test_a_machine_on_which_equal_arms_differ_is_not(monkeypatch: pytest.MonkeyPatch):
    found = trust(lambda: 1.0)
    assert found.is_good and found.resolution == 0
    biased = Trust(found.summary.__class__(**{**vars(found.summary), "low": 0.001, "high": 0.003}))
    assert biased.resolution < 0.01 and not biased.is_good


def test_a_missing_extra_is_named_with_its_command_and_is_no_fault():
    absent = Extra("x", ("torch", "no_such_package"), "something", "pip install x").check()
    assert (absent.fit, absent.state, absent.advice) == (False, "missing", "pip install x")
    assert Extra("y", ("torch",), "something", "").check().state == "works"
    assert MachineCheck("needed", False, "gone").state == "amiss"


def test_every_extra_names_a_command_that_pip_understands():
    assert [found.name for found in extras()] == [extra.name for extra in EXTRAS]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [re.search(r"\[(\w+)\]", extra.command) for extra in EXTRAS]
    assert all(extra.command.startswith("pip install ") for extra in EXTRAS)
    assert {found[1] for found in asked if found} <= known.keys()


def test_nvml_tells_what_it_reads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml().state == "missing" and "[gpu]" in nvml().advice
    state = DeviceState(1410, 2619, 41, 123.4, 0)
    monkeypatch.setattr("harness.latency.machine.device_state", lambda: state)
    assert nvml().state == "works" and "1410 MHz, 41 °C" in nvml().found


def test_the_self_test_runs_the_embedded_model():
    found = latency(seconds=0.01)
    assert found.state in ("works", "poor") and "over 5 pairs" in found.found
