"""Which machine this is, and the state of its accelerator at a moment.

`machine().id` is what keeps timings of two machines apart: it is the hash of the hardware alone, so that a new driver
or library leaves it. The host's name is not part of it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from harness.records.records import digest

GIB = 1024**3


@dataclass(frozen=True)
class Machine:
    """A fingerprint. hardware: what `id` is the hash of; software: versions and settings beside it."""

    id: str
    hardware: Mapping[str, Any]
    software: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """Plain JSON of it all."""
        return {"machine_id": self.id, "hardware": dict(self.hardware), "software": dict(self.software)}


@dataclass(frozen=True)
class DeviceState:
    """An accelerator at a moment, read and never set. None: the device does not say.

    throttle_bits: NVML's clocks-event reasons, 0 = not held back (1 = idle, 4 = power cap, 32 and 64 = heat).
    """

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    throttle_bits: int | None


def machine() -> Machine:
    """The fingerprint of this machine."""
    hardware = {
        "cpu": cpu_model(Path("/proc/cpuinfo")),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpus": _gpus(),
    }
    software = {
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "torch_cuda": torch.version.cuda,
        "gpu_driver": _driver(),
        "threads": torch.get_num_threads(),
        "usable_cores": _usable_cores(),
    }
    return Machine(digest(hardware), hardware, software)


def cpu_model(cpuinfo: Path) -> str:
    """The processor's name in Linux's words, else Python's."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> int | None:
    """Installed memory, rounded: the kernel's share differs by a few MiB between boots."""
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    if "SC_PHYS_PAGES" not in names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB)


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _gpus() -> list[dict[str, Any]]:
    """Name and memory of each accelerator that torch sees."""
    if torch.cuda.is_available():
        all_properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return [{"name": p.name, "memory_gib": round(p.total_memory / GIB)} for p in all_properties]
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        return [{"name": str(device), "memory_gib": None}] * torch.accelerator.device_count()
    return []


def _driver() -> str | None:
    nvml = _nvml()
    if nvml is None:
        return None
    with _nvml_session(nvml):
        return str(nvml.nvmlSystemGetDriverVersion())


def _nvml() -> ModuleType | None:
    """NVML's bindings where they are installed and work, else None."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    pynvml.nvmlShutdown()
    return pynvml


@contextmanager
def _nvml_session(nvml: ModuleType) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


@contextmanager
def device_reader(uuid: str | None = None) -> Iterator[Callable[[], DeviceState | None]]:
    """A function that reads the device's state, open as long as the block: opening NVML takes milliseconds.

    uuid: NVML's name of the device, None for torch's current one. Without NVML or a GPU the function gives None.
    """
    with _device(uuid) as opened:
        yield (lambda: _read(*opened)) if opened else (lambda: None)


@contextmanager
def energy_reader(uuid: str | None = None) -> Iterator[Callable[[], int | None]]:
    """A function that reads the millijoules that the device took since its driver was loaded; None as above."""
    with _device(uuid) as opened:
        yield (lambda: _ask(*opened, "nvmlDeviceGetTotalEnergyConsumption")) if opened else (lambda: None)


@contextmanager
def _device(uuid: str | None) -> Iterator[tuple[ModuleType, Any] | None]:
    """NVML and its handle of a device, None without them."""
    nvml = _nvml()
    name = uuid or _current_uuid()
    if nvml is None or name is None:
        yield None
        return
    with _nvml_session(nvml):
        yield nvml, nvml.nvmlDeviceGetHandleByUUID(name)


def device_state() -> DeviceState | None:
    """The state of torch's current GPU now; None without NVML or a GPU."""
    with device_reader() as read:
        return read()


def _current_uuid() -> str | None:
    if not torch.cuda.is_available():
        return None
    return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def _read(nvml: ModuleType, handle: Any) -> DeviceState:
    ask = partial(_ask, nvml, handle)
    milliwatts = ask("nvmlDeviceGetPowerUsage")
    return DeviceState(
        sm_clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        memory_clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        temperature_c=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        power_w=None if milliwatts is None else milliwatts / 1000,
        throttle_bits=ask("nvmlDeviceGetCurrentClocksThrottleReasons"),
    )


def _ask(nvml: ModuleType, handle: Any, query: str, *arguments: Any) -> Any:
    try:
        return getattr(nvml, query)(handle, *arguments)
    except nvml.NVMLError:  # this card, or a slice of it, does not say
        return None
