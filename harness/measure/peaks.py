"""How fast a device can be: the vendor's dense figures, and what a product of matrices and a copy reach in place.

Vendor figures are without sparsity, at boost clocks, with float32 accumulation; float32 is the CUDA cores' (TF32 is
off in torch by default). Sources: NVIDIA's data sheets of each product. Both kinds are stored with every session.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TERA, GIGA = 1e12, 1e9
VENDOR, MEASURED = "vendor", "measured"
MEASURING_SECONDS, FEWEST_REPETITIONS = 0.15, 3
_SIDE = {"cpu": 512}  # of the square matrices; an accelerator needs larger ones to be busy
_SIDE_ELSEWHERE, _COPIED_ELSEWHERE = 8192, 512 * 2**20
_COPIED_BYTES = {"cpu": 64 * 2**20}


@dataclass(frozen=True)
class Peaks:
    """A device's ceilings. source: "vendor" (its data sheet) or "measured" (here and now)."""

    flops_per_s: float
    bytes_per_s: float
    source: str


@dataclass(frozen=True)
class _Sheet:
    """One product's data sheet. half: bfloat16 and float16 on tensor cores, dense."""

    half_tera: float
    single_tera: float
    gigabytes_per_s: float


VENDOR_SHEETS: Mapping[str, _Sheet] = {  # torch's name of the device -> figures
    "NVIDIA H200": _Sheet(989.4, 66.9, 4800),
    "NVIDIA H100 80GB HBM3": _Sheet(989.4, 66.9, 3350),
    "NVIDIA H100 NVL": _Sheet(835.5, 60.0, 3938),
    "NVIDIA H100 PCIe": _Sheet(756.0, 51.2, 2039),
    "NVIDIA A100-SXM4-80GB": _Sheet(312.0, 19.5, 2039),
    "NVIDIA A100 80GB PCIe": _Sheet(312.0, 19.5, 1935),
    "NVIDIA A100-SXM4-40GB": _Sheet(312.0, 19.5, 1555),
    "NVIDIA A100-PCIE-40GB": _Sheet(312.0, 19.5, 1555),
    "NVIDIA L40S": _Sheet(362.05, 91.6, 864),
    "NVIDIA L4": _Sheet(121.0, 30.3, 300),
    "NVIDIA GeForce RTX 4090": _Sheet(165.2, 82.6, 1008),
    "NVIDIA GeForce RTX 3090": _Sheet(71.0, 35.6, 936),
}


def vendor_peaks(device_name: str, dtype: str) -> Peaks | None:
    """The data sheet's figures for a dtype ("float32", "bfloat16", "float16"); None for a device not listed."""
    sheet = VENDOR_SHEETS.get(device_name)
    if sheet is None:
        return None
    tera = sheet.single_tera if dtype == "float32" else sheet.half_tera
    return Peaks(tera * TERA, sheet.gigabytes_per_s * GIGA, VENDOR)


def device_name(device: str) -> str:
    """torch's name of a CUDA device, else the kind of the device: what the table above is keyed by."""
    import torch

    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else torch.device(device).type


def measured_peaks(device: str, dtype: str) -> Peaks:
    """The best of a few products of square matrices and of a few copies, on this device, in this dtype.

    A copy reads and writes: its bytes count twice.
    """
    import torch

    kind = torch.device(device).type
    side = _SIDE.get(kind, _SIDE_ELSEWHERE)
    matrix = torch.ones(side, side, dtype=getattr(torch, dtype), device=device)
    source = torch.ones(_COPIED_BYTES.get(kind, _COPIED_ELSEWHERE), dtype=torch.uint8, device=device)
    target, product = torch.empty_like(source), torch.empty_like(matrix)
    wait = torch.accelerator.synchronize if kind != "cpu" else lambda: None
    flops = 2 * side**3 / best_seconds(lambda: torch.mm(matrix, matrix, out=product), wait)
    moved = 2 * source.numel() / best_seconds(lambda: target.copy_(source), wait)
    return Peaks(flops, moved, MEASURED)


def best_seconds(
    work: Callable[[], Any], wait: Callable[[], Any], now_s: Callable[[], float] = time.perf_counter
) -> float:
    """The shortest of at least 3 repetitions after a first one, as many as fit in 0.15 s."""
    work()
    wait()
    times: list[float] = []
    while len(times) < FEWEST_REPETITIONS or sum(times) < MEASURING_SECONDS:
        begin = now_s()
        work()
        wait()
        times.append(now_s() - begin)
    return min(times)
