"""The physical limit of a row: by hand, then the spec's own example."""

from __future__ import annotations

import pytest
from tiny import qwen3_vl

from harness.flops.dims import ModelDims, dims_of
from harness.flops.prefill import prefill_flops
from harness.latency.break_even import break_even, visual_tokens
from harness.latency.roofline import (
    Peaks,
    best_seconds,
    device_name,
    floors_ms,
    limit_rows,
    measured_peaks,
    roofline,
    stage_weights,
    vendor_peaks,
    work_rows,
)
from harness.latency.statistics import summarise
from harness.records.records import LatencyRow, Realised, ResourceRow

LLAVA_7B = ModelDims(
    vit_layers=23,  # the last block's output is not used
    vit_width=1024,
    vit_mlp_width=4096,
    vit_mlp_matrices=2,
    vit_prefix_tokens=1,
    patch_values=3 * 14 * 14,
    unit_patches=1,
    unit_pixel_values=3 * 14 * 14,
    projector_linears=((1024, 4096), (4096, 4096)),
    projectors=1,
    llm_layers=32,
    llm_width=4096,
    llm_query_width=4096,
    llm_key_width=4096,
    llm_head_width=128,
    llm_mlp_width=11008,
    llm_mlp_matrices=3,
    vocabulary=32064,
)


def flops(vit: int, projector: int, select: int, llm: int) -> dict[str, int]:
    return {"vit": vit, "projector": projector, "select": select, "llm": llm, "total": 0}


def timed(base_ms: float, pruned_ms: float, select_ms: float, shape: str = "2x2+4") -> list[LatencyRow]:
    rows = []
    for pair in range(5):
        rows.append(LatencyRow("s", shape, pair, "base", 0, False, "total", base_ms, "device_event"))
        rows.append(LatencyRow("s", shape, pair, "pruned", 1, False, "total", pruned_ms, "device_event"))
        rows.append(LatencyRow("s", shape, pair, "pruned", 1, False, "select", select_ms, "device_event"))
    return rows


def test_a_stage_is_limited_by_its_products_or_by_its_weights():
    peaks = Peaks(flops_per_s=1000, bytes_per_s=10, source="measured")
    work = {"vit": 8.0, "projector": 1.0, "select": 2.0, "llm_prefill": 3.0}
    floors = floors_ms(work, {"vit": 0.05, "projector": 0.02, "llm_prefill": 0.2}, peaks)
    assert floors == pytest.approx({"vit": 8, "projector": 2, "select": 2, "llm_prefill": 20, "total": 32})
    idle = floors_ms({**work, "projector": 0.0}, {"projector": 0.02}, peaks)
    assert idle["projector"] == 0  # what does not run reads no weights


def test_a_row_against_its_limit_by_hand():
    """Base floor 4 + 1 + 0 + 10 ms; pruned 4 + 1 + 1 + 4; late 4 + 1 + 0 + 2."""
    peaks = Peaks(1000, 1e9, "vendor")
    rows = [ResourceRow("s", "base", "vendor_flops_per_s", 1000.0), ResourceRow("s", "base", "vendor_bytes_per_s", 1e9)]
    rows += [ResourceRow("s", "base", "measured_flops_per_s", 1.0), ResourceRow("s", "base", "measured_bytes_per_s", 1)]
    for arm, work in (("base", flops(4, 1, 0, 10)), ("pruned", flops(4, 1, 1, 4)), ("late", flops(4, 1, 0, 2))):
        rows += work_rows("s", arm, "2x2+4", work)
    found = roofline(rows, summarise(timed(base_ms=30, pruned_ms=24, select_ms=5)))
    assert found is not None and found.peaks == peaks.source  # the data sheet counts where there is one
    assert found.roofline_lr == pytest.approx(1 - 10 / 15)
    assert found.late_ceiling_lr == pytest.approx(1 - 7 / 15)
    assert found.lr_efficiency == pytest.approx((1 - 24 / 30) / (1 - 10 / 15))
    assert found.select_tax == pytest.approx(5 / (30 - 10))
    assert found.floor_ms["pruned"] == pytest.approx(
        {"vit": 4, "projector": 1, "select": 1, "llm_prefill": 4, "total": 10}
    )


def test_a_row_that_its_limit_does_not_allow_to_gain_has_no_efficiency():
    peaks = [ResourceRow("s", "base", "measured_flops_per_s", 1000.0)]
    peaks.append(ResourceRow("s", "base", "measured_bytes_per_s", 1e9))
    work = [row for arm in ("base", "pruned", "late") for row in work_rows("s", arm, "2x2+4", flops(4, 1, 0, 10))]
    found = roofline(peaks + work, summarise(timed(base_ms=15, pruned_ms=16, select_ms=1)))
    assert found is not None
    assert (found.roofline_lr, found.lr_efficiency, found.select_tax) == (0, None, None)  # base is at its floor
    assert roofline(work, summarise(timed(15, 16, 1))) is None  # no peaks, no limit


def test_the_specs_example_llava_7b_at_64_tokens_on_an_h100_halves_and_no_more():
    """FLOPs alone promise more than three quarters; 13 GB of weights must still be read."""
    peaks = vendor_peaks("NVIDIA H100 80GB HBM3", "float16")
    assert peaks is not None
    rows = limit_rows("s", LLAVA_7B, 2, [peaks])
    llm = {}
    for arm, kept in (("base", 576), ("pruned", 64), ("late", 0)):
        realised = Realised(((577,),) * 23, 576, (kept,) * 32, text_tokens=40)
        counted = prefill_flops(LLAVA_7B, realised)
        llm[arm] = counted.total
        rows += work_rows("s", arm, "24x24+40", {**vars(counted), "total": counted.total})
    found = roofline(rows, summarise(timed(10, 6, 0)))
    assert found is not None
    assert found.roofline_lr == pytest.approx(0.5, abs=0.03)
    assert 1 - llm["pruned"] / llm["base"] > 0.75
    assert found.late_ceiling_lr == pytest.approx(found.roofline_lr)  # fewer tokens gain nothing more


def test_the_weights_of_each_stage_are_those_of_the_model():
    model = qwen3_vl()
    weights = stage_weights(dims_of(model.config))
    matrices = {name: p.numel() for name, p in model.named_parameters() if p.ndim > 1}
    assert weights["llm_prefill"] == model.lm_head.weight.numel() + sum(
        n for name, n in matrices.items() if "language_model.layers" in name
    )
    mergers = sum(n for name, n in matrices.items() if "merger" in name)
    assert weights["projector"] == mergers
    blocks = sum(n for name, n in matrices.items() if "visual" in name and "pos_embed" not in name) - mergers
    assert weights["vit"] == blocks
    assert weights["select"] == 0


def test_a_data_sheet_knows_its_dtypes_and_only_its_devices():
    h200 = vendor_peaks("NVIDIA H200", "bfloat16")
    assert h200 is not None and (h200.flops_per_s, h200.bytes_per_s) == (989.4e12, 4.8e12)
    single = vendor_peaks("NVIDIA H200", "float32")
    assert single is not None and single.flops_per_s == pytest.approx(66.9e12)
    assert vendor_peaks(device_name("cpu"), "float32") is None


def test_peaks_are_measured_in_place_and_the_best_repetition_counts():
    found = measured_peaks("cpu", "float32")
    assert found.source == "measured" and found.flops_per_s > 1e8 and found.bytes_per_s > 1e8
    clock = iter([0, 3, 10, 11, 20, 22])
    assert best_seconds(lambda: None, lambda: None, lambda: next(clock)) == 1


def test_where_selection_stops_paying_is_told_by_shape():
    small, large = timed(10, 9, 0.5, "2x2+4"), timed(40, 41, 6, "2x3,4x4+9#1")
    controls = [LatencyRow("s", "2x2+4", 9 + i, "base", 0, True, "total", 999, "device_event") for i in range(9)]
    lone = LatencyRow("s", "9x9+9", 0, "base", 0, False, "total", 1, "device_event")
    found = break_even([*large, *controls, lone, *small])
    assert [(one.n, one.select_ms, one.saved_ms, one.pays) for one in found] == [(4, 0.5, 1.5, True), (22, 6, 5, False)]
    assert visual_tokens("2x3,4x4+9#1") == 22
