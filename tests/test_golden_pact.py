"""PACT: the authors' clusters through `in_llm`, and their runs on the native Qwen2Model under our hooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_llm import Prefilled, case_of, close, files, native_model
from views import shape_of, view_of

from harness.models import sequence
from harness.models.attention import Capture
from harness.models.llm_signals import read_signal
from methods.base import View
from methods.pact import PACT, density
from methods.selection import Selection, reduce, reduce_sizes

CLUSTERS = [name for name in files("pact_dbdpc_case*.npz") if "partition" not in name]
RUNS = files("pact_e2e_case*.npz")


def clustered(case) -> tuple[PACT, View, Selection]:
    """The kept tokens and behind them the pruned ones, which get no importance."""
    keys = torch.from_numpy(np.concatenate([case["keys"], case["pruned_keys"]]))
    hidden = torch.from_numpy(np.concatenate([case["hidden"], case["pruned_hidden"]]))
    m, n = len(case["keys"]), len(keys)
    pruner = PACT(keep=m / n, cutoff=float(case["cutoff"]), alpha=float(case["alpha"]))
    assert pruner.survivors(n) == m
    shape = shape_of((1, n), llm_layers=28)
    rows, cosines = pruner.needs(shape)
    capture = Capture(keys[None, None], keys[None, None], 1.0)
    signals = {
        rows: (torch.arange(n) < m).float() / hidden.norm(dim=1),
        cosines: read_signal(cosines, capture, torch.arange(n), causal=True),
    }
    view = view_of(pruner.site(shape), hidden, None, shape, signals)
    return pruner, view, pruner.in_llm(view)


@pytest.mark.parametrize("name", CLUSTERS)
def test_centres_members_and_means_equal_the_authors(name):
    case = case_of(name)
    _, view, selection = clustered(case)
    assert selection.keep.tolist() == case["out_center_index"].tolist()
    labels = torch.where(selection.assign < 0, -1, selection.keep[selection.assign.clamp_min(0)])
    assert labels.tolist() == case["out_labels"].tolist()
    close(reduce(selection, view.hidden), case["out_merged_centers"], 1e-5)
    assert reduce_sizes(selection, view.size).tolist() == case["out_cluster_size"].tolist()


@pytest.mark.parametrize("name", CLUSTERS)
def test_densities_equal_the_authors(name):
    case = case_of(name)
    pruner, view, _ = clustered(case)
    distance = (1 - view.signal(pruner.needs(view.shape)[1])).clamp_min(0)
    m = len(case["keys"])
    close(density(distance[:m, :m].fill_diagonal_(0)), case["out_density"], 1e-3)


def test_exact_duplicates_are_parted_like_the_authors():
    case = case_of("pact_dbdpc_case09_exact_duplicates_partition_only.npz")
    _, view, selection = clustered(case)
    slots = selection.assign.tolist()
    numbers = {slot: number for number, slot in enumerate(dict.fromkeys(slots))}  # clusters by their first member
    assert [numbers[slot] for slot in slots] == case["out_partition"].tolist()
    order = list(numbers)
    close(reduce(selection, view.hidden)[order], case["out_merged_by_partition"], 1e-5)
    assert reduce_sizes(selection, view.size)[order].tolist() == case["out_cluster_size"].tolist()


@pytest.fixture(params=RUNS)
def run(request):
    return run_of(request.param)


def run_of(name: str):
    case = case_of(name)
    is_image = case["position_and_is_image"][:, 1]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_image, [0]])))
    spans = tuple((int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True))
    pruner = PACT(
        layer=int(case["layer_for_reduction"]),
        depth=6,
        keep=float(case["keep_fraction"]),
        cutoff=float(case["cutoff"]),
        alpha=float(case["alpha"]),
        prune=bool(case["use_euti"]),
        cluster=bool(case["use_dbdpc"]),
        retrieve=bool(case["recover_pruned"]),
        proportional=bool(case["proportional_attention"]),
    )
    model = native_model(
        str(case["weights_file"]), int(case["num_heads"]), int(case["num_kv_heads"]), float(case["rope_theta"])
    )
    return case, Prefilled(model, pruner, torch.from_numpy(case["inputs_embeds"]), spans)


def test_importance_and_clusters_equal_the_authors(run):
    case, ours = run
    layer = int(case["layer_for_reduction"])
    view, selection = ours.views[layer], ours.selections[layer]
    if case["use_euti"]:
        rows = view.signal(ours.pruner.needs(ours.shape)[0])
        close(rows * view.hidden.norm(dim=1), case["euti_score_image"], 1e-5)
    places = np.flatnonzero(case["position_and_is_image"][:, 1])
    if case["use_dbdpc"]:
        centre = case["dbdpc_center_mask"]
        assert places[selection.keep].tolist() == case["dbdpc_kept_pos"][centre].tolist()
        sizes = reduce_sizes(selection, view.size)
        assert sizes.tolist() == case["dbdpc_cluster_size"][centre].tolist()
    assert [view.n, len(selection.keep)] == case["visual_before_after"].tolist()


def test_states_positions_and_caches_after_the_reduction_equal_the_authors(run):
    case, ours = run
    layer = int(case["layer_for_reduction"])
    assert ours.kept == case["out_position_ids_after"].tolist()
    close(ours.entered[layer], case["out_hidden_after_reduction"])
    torch.testing.assert_close(ours.tables[layer], ours.cos_of(case["out_position_ids_after"]), atol=0, rtol=0)
    assert ours.cached == case["kv_len_per_layer_after_prefill"].tolist()


def both_outputs_close(case, ours: Prefilled, tolerance: float) -> None:
    close(ours.hidden, case["last_hidden_prefill"], tolerance)
    (step,) = ours.decode(torch.from_numpy(case["decode_embed"]))
    close(step, case["last_hidden_decode"], tolerance)


def test_prefill_and_decoding_equal_the_authors_but_for_their_rounded_logarithms(run):
    case, ours = run
    both_outputs_close(case, ours, 5e-4)  # log(3) in float16 is off by 2e-4
    log_size = ours.surgery._sequence.log_size
    if log_size is not None:
        close(log_size[None], case["out_log_weights_fp16"].astype(np.float32), 2e-3)


@pytest.mark.parametrize("name", RUNS)
def test_with_logarithms_in_float16_prefill_and_decoding_equal_the_authors(name, monkeypatch):
    def rounded(selection, size):
        return reduce_sizes(selection, size).half().log().float().exp()

    monkeypatch.setattr(sequence, "reduce_sizes", rounded)
    both_outputs_close(*run_of(name), 1e-4)


def test_every_golden_file_is_there():
    assert len(CLUSTERS) >= 5 and len(RUNS) >= 5
