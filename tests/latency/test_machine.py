"""The fingerprint of a machine, and its device's state through a stand-in for NVML."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from harness.latency import machine as module
from harness.latency.machine import DeviceState, cpu_model, device_reader, device_state, energy_reader, machine
from harness.records.records import digest


class NVMLError(Exception):
    pass


class FakeNvml(SimpleNamespace):
    """One card whose clocks and power can be read, and whose throttle reasons cannot."""

    def __init__(self, starts: bool = True) -> None:
        super().__init__(NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, NVML_TEMPERATURE_GPU=0, NVMLError=NVMLError)
        self.starts = starts
        self.open = 0
        self.opened = 0

    def nvmlInit(self) -> None:
        if not self.starts:
            raise NVMLError("no driver")
        self.open += 1
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return f"handle of {uuid}"

    def nvmlDeviceGetClockInfo(self, handle: str, which: int) -> int:
        assert self.open and handle == "handle of GPU-7"
        return {1: 1410, 2: 2619}[which]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 41

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 123_400

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        raise NVMLError("not supported")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        assert self.open and handle == "handle of GPU-7"
        return 5_000

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"


def test_the_id_is_the_hash_of_the_hardware_and_nothing_else():
    here = machine()
    assert here.id == digest(here.hardware) == machine().id
    assert {"cpu", "cores", "memory_gib", "gpus"} <= set(here.hardware)
    assert {"torch", "transformers", "python", "threads", "os", "gpu_driver"} <= set(here.software)
    assert here.hardware["cores"] >= 1
    assert here.software["torch"] == torch.__version__


def test_threads_are_told_and_leave_the_id():
    before, threads = machine(), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        after = machine()
    finally:
        torch.set_num_threads(threads)
    assert after.software["threads"] == threads + 1
    assert after.id == before.id


def test_another_processor_is_another_machine(monkeypatch: pytest.MonkeyPatch):
    here = machine()
    monkeypatch.setattr(module, "cpu_model", lambda path: "another processor")
    assert machine().id != here.id


def test_facts_are_plain_json():
    facts = machine().facts()
    assert json.loads(json.dumps(facts)) == facts


def test_the_processor_is_named_as_linux_names_it(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Example 9000 @ 2.0GHz\n\nprocessor\t: 1\nmodel name\t: other\n")
    assert cpu_model(cpuinfo) == "Example 9000 @ 2.0GHz"
    assert cpu_model(tmp_path / "absent")  # another system: Python's own words


def test_device_state_is_read_in_our_units_and_nvml_is_closed_again(monkeypatch: pytest.MonkeyPatch):
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with device_reader("GPU-7") as read:
        opened = nvml.opened
        state = read()
        read()
        assert nvml.opened == opened  # not opened again for each reading
    assert state == DeviceState(1410, 2619, 41, 123.4, None)
    assert nvml.open == 0


def test_energy_is_read_in_millijoules_and_nvml_is_closed_again(monkeypatch: pytest.MonkeyPatch):
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with energy_reader("GPU-7") as read:
        assert read() == 5_000
    assert nvml.open == 0


def test_the_driver_is_told_and_leaves_the_id(monkeypatch: pytest.MonkeyPatch):
    before = machine().id
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    assert machine().software["gpu_driver"] == "580.1"
    assert machine().id == before


@pytest.mark.parametrize("bindings", [None, FakeNvml(starts=False)], ids=["not installed", "no driver"])
def test_without_nvml_there_is_no_state(monkeypatch: pytest.MonkeyPatch, bindings: FakeNvml | None):
    monkeypatch.setitem(sys.modules, "pynvml", bindings)
    assert device_state() is None
    with device_reader("GPU-7") as read:
        assert read() is None
    with energy_reader("GPU-7") as read:
        assert read() is None
    assert machine().software["gpu_driver"] is None
