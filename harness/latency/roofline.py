"""The physical limit of a row: what its shapes would take if each stage ran at the device's peak, and what was lost.

The floor of a stage is max(FLOPs / peak, bytes / bandwidth), its weights streamed once. At batch 1 FLOPs alone
mislead: below some token count a prefill waits for its weights however few tokens are left.

* roofline_lr: the LR that the row's shapes would reach at their floors; lr_efficiency: LR / roofline_lr.
* select_tax: t_select / (t_base - t_floor), the share of the time that could be saved which the pruner itself eats;
  t_floor is the pruned arm's floor.
* late_ceiling_lr: the roofline LR of a pruner behind the projector that keeps no visual token and costs nothing. No
  pruner at the interface or in the LLM can pass it; one in or before the ViT can.

Everything is told from stored numbers: work by shape and stage, the weights, the peaks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.flops.dims import ModelDims
from harness.latency.clock import TOTAL
from harness.latency.statistics import LatencySummary
from harness.records.records import SHORT_STAGES, STAGES, ResourceRow

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


# Vendor figures: dense, at boost clocks, with float32 accumulation; float32 is the CUDA cores' (TF32 is off in torch by
# default). Sources: NVIDIA's data sheets of each product. Measured peaks are stored beside them with every session.
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


BASE, PRUNED, LATE = "base", "pruned", "late"  # late: no visual token enters the LLM


@dataclass(frozen=True)
class Roofline:
    """A row against its limit; the module's docstring defines the words. peaks: "vendor" | "measured".

    floor_ms: arm ("base", "pruned", "late") -> stage and "total" -> mean over shapes. Ratios are None where their
    denominator is not positive.
    """

    peaks: str
    floor_ms: Mapping[str, Mapping[str, float]]
    roofline_lr: float
    late_ceiling_lr: float
    lr_efficiency: float | None
    select_tax: float | None


def stage_weights(dims: ModelDims) -> dict[str, int]:
    """Weights that each stage reads, in values: matrices, without biases, norms and the embedding of the words."""
    d, q, kv = dims.llm_width, dims.llm_query_width, dims.llm_key_width
    block = 4 * dims.vit_width**2 + dims.vit_mlp_matrices * dims.vit_width * dims.vit_mlp_width
    layer = 2 * d * q + 2 * d * kv + dims.llm_mlp_matrices * d * dims.llm_mlp_width
    return {
        "vit": dims.patch_values * dims.vit_width + dims.vit_layers * block,
        "projector": dims.projectors * sum(wide * out for wide, out in dims.projector_linears),
        "select": 0,
        "llm_prefill": dims.llm_layers * layer + d * dims.vocabulary,
    }


def floors_ms(flops: Mapping[str, float], weight_bytes: Mapping[str, float], peaks: Peaks) -> dict[str, float]:
    """Stage -> the least milliseconds it can take, and "total", their sum. A stage without FLOPs takes none."""
    floors = {
        stage: 1000 * max(flops[stage] / peaks.flops_per_s, weight_bytes.get(stage, 0) / peaks.bytes_per_s)
        if flops[stage]
        else 0.0
        for stage in flops
    }
    return {**floors, TOTAL: sum(floors.values())}


def work_rows(session: str, arm: str, shape_key: str, flops: Mapping[str, int]) -> list[ResourceRow]:
    """FLOPs of one arm on one shape (as `Record.flops`), to be stored: "work_flops/STAGE/SHAPE"."""
    return [
        ResourceRow(session, arm, f"work_flops/{stage}/{shape_key}", float(flops[SHORT_STAGES.get(stage, stage)]))
        for stage in STAGES
    ]


def limit_rows(
    session: str, dims: ModelDims, bytes_per_value: int, all_peaks: Iterable[Peaks | None]
) -> list[ResourceRow]:
    """The weights ("weight_bytes/STAGE") and the peaks ("SOURCE_flops_per_s", "SOURCE_bytes_per_s"), to be stored."""
    found = {f"weight_bytes/{stage}": values * bytes_per_value for stage, values in stage_weights(dims).items()}
    for peaks in all_peaks:
        if peaks is not None:
            found[f"{peaks.source}_flops_per_s"] = peaks.flops_per_s
            found[f"{peaks.source}_bytes_per_s"] = peaks.bytes_per_s
    return [ResourceRow(session, BASE, name, float(value)) for name, value in found.items()]


def roofline(resources: Sequence[ResourceRow], measured: LatencySummary) -> Roofline | None:
    """A row against its limit, from what `work_rows` and `limit_rows` stored; None where nothing was.

    The vendor's peaks count where the device is listed, else the best that was measured.
    """
    peaks = _peaks(resources)
    work = _work(resources)
    if peaks is None or not {BASE, PRUNED, LATE} <= work.keys():
        return None
    weights = {row.name.partition("/")[2]: row.value for row in resources if row.name.startswith("weight_bytes/")}
    floors = {
        arm: {shape: floors_ms(flops, weights, peaks) for shape, flops in shapes.items()}
        for arm, shapes in work.items()
    }
    limit, late = _lr(floors[BASE], floors[PRUNED]), _lr(floors[BASE], floors[LATE])
    means = {arm: _over_shapes(shapes) for arm, shapes in floors.items()}
    could_save = measured.base_ms[TOTAL] - means[PRUNED][TOTAL]
    return Roofline(
        peaks=peaks.source,
        floor_ms=means,
        roofline_lr=limit,
        late_ceiling_lr=late,
        lr_efficiency=measured.lr / limit if limit > 0 else None,
        select_tax=measured.pruned_ms.get("select", 0.0) / could_save if could_save > 0 else None,
    )


def _peaks(resources: Iterable[ResourceRow]) -> Peaks | None:
    """The highest of each kind over sessions: a busy moment lowers a measurement, nothing raises it."""
    best: dict[str, float] = {}
    for row in resources:
        best[row.name] = max(row.value, best.get(row.name, 0.0))
    for source in (VENDOR, MEASURED):
        if f"{source}_flops_per_s" in best:
            return Peaks(best[f"{source}_flops_per_s"], best[f"{source}_bytes_per_s"], source)
    return None


def _work(resources: Iterable[ResourceRow]) -> dict[str, dict[str, dict[str, float]]]:
    """Arm -> shape -> stage -> FLOPs. Sessions tell the same; the last one counts."""
    work: dict[str, dict[str, dict[str, float]]] = {}
    for row in resources:
        kind, _, place = row.name.partition("/")
        if kind == "work_flops":
            stage, _, shape_key = place.partition("/")
            work.setdefault(row.arm, {}).setdefault(shape_key, {})[stage] = row.value
    return work


def _lr(base: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]]) -> float:
    """1 - the geometric mean over shapes of the ratio of totals, as the measured LR is formed."""
    return 1 - math.exp(fmean(math.log(other[shape][TOTAL] / base[shape][TOTAL]) for shape in base))


def _over_shapes(shapes: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    stages = next(iter(shapes.values()))
    return {stage: fmean(floors[stage] for floors in shapes.values()) for stage in stages}
