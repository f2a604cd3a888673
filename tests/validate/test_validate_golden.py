"""Golden files: all that were handed over pass, and one changed number of the authors' output does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.records.errors import UsageError
from harness.validate.golden import FileResult, validate_file, validate_folder
from harness.validate.golden.case import GoldenCase
from harness.validate.golden.folder import CHECKS, WEIGHT_FILES, check_of

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("*.npz"))
LIMITED = {  # tests/golden/README.md: what cannot be asserted
    "cdpruner_edge_rank_deficient.npz",
    "vispruner_fragile_n576_t64_r050.npz",
    "vispruner_fragile_n576_t128_r050.npz",
    "vispruner_fragile_n576_t192_r050.npz",
}
ASSERTED = [path for path in FILES if "_weights_" not in path.name and path.name not in LIMITED]
INPUTS = {
    "alpha", "attention_logits_masked", "attn_rows_text_to_image", "clip_image_embeds", "clip_text_embeds",
    "class_token", "cls_attention", "cluster_num", "cutoff", "decode_embed", "decode_embeds",
    "density_noise_uniform01", "embeddings",
    "fastv_k", "fastv_r", "features", "hidden", "image_length", "image_start", "important_ratio",
    "importance_per_layer", "inputs_embeds", "iters", "keep_count",
    "keep_fraction", "keep_ratio", "keys", "layer", "layer_for_reduction",
    "layer_list", "metric", "n_text", "n_visual", "num_heads", "num_kv_heads", "official_error",
    "position_and_is_image", "pre", "projected_features", "proportional_attention", "pruned_hidden", "pruned_keys",
    "ratio_list", "recover_pruned", "retain", "rms_eps", "rms_norm_eps", "rope_theta", "seq_len", "stage_r", "tau",
    "tokens", "use_dbdpc", "use_euti", "version", "visual_end_exclusive", "visual_start", "visual_token_num",
    "weights_file", "x", "K", "gamma", "image_keys_head_mean", "keep_num", "keys_head_mean", "n_special", "r",
    "sim_threshold", "attention_mask", "contextual", "contextual_ratio", "dominant_ratio", "dominant_user", "grid_h",
    "grid_w", "hidden_act", "hidden_states", "image_token_id", "input_ids", "k", "key_metric", "layer_norm_eps",
    "position_ids", "q", "window", "window_index", *(f"stage{stage}_merge_noise" for stage in (1, 2, 3)),
    "anchored", "attention", "attn_deep_layer", "attn_object_layer", "cls_attention_rows", "cols", "combine_add",
    "eta_example", "first_layer", "grids", "image_size_wh", "keep", "loadings_abs", "need_token_num",
    "normalised_round_trip", "object_layer_1based", "position_rule", "prune_rate", "retain_ratio",
    "bottom_cls_attention", "grid_rows_cols", "image_sizes_hw", "k_proj", "q_proj_cls", "tiles_per_image",
    "token_budget_rate", "top_cls_attention", "retention", "rows", "saliency_head_sum", "scan", "span_length",
    "span_start", "threshold", "tile_side", "unit", "value_bits",
    *(f"image{number}_uint8" for number in range(3)),
}  # fmt: skip
METADATA = {
    "argmax_margin", "assignment_margin", "boundary_relative_gap", "dbdpc_margin", "density_min_gap", "density_scale",
    "euti_boundary_relative_gap", "margin_min_abs_dist_minus_cutoff", "note", "seed", "stable_in_float64",
    "topk_boundary_relative_gap", *(f"stage{stage}_max_abs_err_of_reimpl" for stage in (1, 2)),
    "max_abs_err_of_reimpl",
}  # fmt: skip


def outputs_of(case: GoldenCase) -> list[str]:
    """The arrays of a file that hold what the authors' code gave."""
    given = {name for name in case.names if name.startswith(("w/", "w__"))}
    if case.path.name.startswith("tome_"):  # AIM's files hold the metric that their merges give, these the one given
        given |= {name for name in case.names if name.endswith("_metric")}
    if "prune_rate" not in case:
        given |= {name for name in case.names if name.endswith("num_crops")}
    if "attn_object_layer" not in case:  # where the maps are stored, what they give of each token is an output
        given |= {"received_object_layer", "received_deep_layer"}
    if "_small" in case.path.name:  # several cases, whose arrays are named CASE__ARRAY
        given |= {name for name in case.names if name.partition("__")[2] in INPUTS | METADATA}
    return [name for name in case.names if name not in INPUTS | METADATA | given]


def changed(path: Path, name: str, place: int, folder: Path) -> Path:
    """A copy of a golden file, and of its weights, with one number of one array changed."""
    case = GoldenCase(path)
    arrays = {other: case[other] for other in case.names}
    array = arrays[name].copy()
    flat = array.reshape(-1)
    flat[place] = not flat[place] if array.dtype == bool else flat[place] + 1
    arrays[name] = array
    for weights in GOLDEN.glob("*_weights_*.npz"):
        if not (folder / weights.name).exists():
            (folder / weights.name).symlink_to(weights)
    copy = folder / path.name
    np.savez(copy, **arrays)
    return copy


def first_of_each_kind() -> list[Path]:
    return [next(path for path in ASSERTED if path.name.startswith(prefix)) for prefix in CHECKS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_authors_outputs_are_ours(path: Path):
    result = validate_file(path)
    expected = "weights" if "_weights_" in path.name else "not_assertable" if path.name in LIMITED else "pass"
    assert result.status == expected, result.detail
    assert bool(result.detail) == (expected != "pass")


def test_no_kind_of_file_is_missing_here():
    assert all(any(path.name.startswith(prefix) for path in FILES) for prefix in (*CHECKS, *WEIGHT_FILES))
    assert len(FILES) >= 148


@pytest.mark.parametrize("path", ASSERTED, ids=lambda path: path.stem)
def test_every_output_of_a_file_is_looked_at(path: Path):
    case = GoldenCase(path)
    check_of(path.name)(case)
    assert set(outputs_of(case)) - case.read == set()


@pytest.mark.parametrize("path", first_of_each_kind(), ids=lambda path: path.stem)
def test_one_changed_number_of_an_output_is_seen(path: Path, tmp_path: Path):
    case = GoldenCase(path)
    names = [name for name in outputs_of(case) if case[name].size]
    assert names
    for name in names:
        result = validate_file(changed(path, name, case[name].size // 2, tmp_path))
        assert result.status == "fail", f"{name} was changed, and nobody noticed"


@pytest.mark.proof
@pytest.mark.parametrize("path", ASSERTED, ids=lambda path: path.stem)
def test_one_changed_number_of_any_output_of_any_file_is_seen(path: Path, tmp_path: Path):
    case = GoldenCase(path)
    for name in outputs_of(case):
        if case[name].size:
            for place in {0, case[name].size // 3, case[name].size - 1}:
                result = validate_file(changed(path, name, place, tmp_path))
                assert result.status == "fail", f"{name} was changed at {place}, and nobody noticed"


@pytest.mark.parametrize("name", sorted(LIMITED))
def test_a_limited_file_is_still_held_to_what_can_be_asserted(name: str, tmp_path: Path):
    case = GoldenCase(GOLDEN / name)
    place = int(np.flatnonzero(case["keep_mask"])[0])
    assert validate_file(changed(GOLDEN / name, "keep_mask", place, tmp_path)).status == "fail"


def judged(tmp_path: Path, name: str, data: bytes) -> FileResult:
    (tmp_path / name).write_bytes(data)
    return validate_file(tmp_path / name)


@pytest.mark.parametrize("length", [0, 1, 100, 5000, -1])
def test_a_truncated_file_fails_with_words(length: int, tmp_path: Path):
    result = judged(tmp_path, "divprune_n64_k16.npz", (GOLDEN / "divprune_n64_k16.npz").read_bytes()[:length])
    assert result.status == "fail" and "cannot be read" in result.detail


def test_what_is_no_archive_fails_with_words(tmp_path: Path):
    assert judged(tmp_path, "divprune_a.npz", b"hello").status == "fail"
    np.save(tmp_path / "bare.npy", np.arange(3))
    assert "no .npz archive" in judged(tmp_path, "divprune_b.npz", (tmp_path / "bare.npy").read_bytes()).detail
    assert judged(tmp_path, "fastv_weights_x.npz", b"hello").status == "fail"


def test_nothing_is_unpickled(tmp_path: Path):
    np.savez(tmp_path / "divprune_pickled.npz", tokens=np.array([{"a": 1}], dtype=object))
    result = validate_file(tmp_path / "divprune_pickled.npz")
    assert result.status == "fail" and "pickle" in result.detail.lower()


def test_a_name_that_nothing_is_known_of_is_not_assertable(tmp_path: Path):
    shutil.copy(GOLDEN / "divprune_n64_k16.npz", tmp_path / "mystery_n64.npz")
    result = validate_file(tmp_path / "mystery_n64.npz")
    assert result.status == "not_assertable" and "name" in result.detail


def test_arrays_that_are_missing_or_of_another_shape_are_named(tmp_path: Path):
    case = GoldenCase(GOLDEN / "divprune_n64_k16.npz")
    arrays = {name: case[name] for name in case.names}
    np.savez(tmp_path / "divprune_a.npz", **{name: array for name, array in arrays.items() if name != "tokens"})
    assert "lacks the array 'tokens'" in validate_file(tmp_path / "divprune_a.npz").detail
    np.savez(tmp_path / "divprune_b.npz", **{**arrays, "tokens": arrays["tokens"].ravel()})
    assert "do not fit" in validate_file(tmp_path / "divprune_b.npz").detail


@pytest.mark.parametrize("name", ["hired_attention_from_qk.npz", "aim_merge_n64_clip.npz", "tome_n65_cls_r8.npz"])
def test_a_file_in_which_nothing_is_compared_fails(name: str, tmp_path: Path):
    case = GoldenCase(GOLDEN / name)
    np.savez(tmp_path / name, **{other: case[other][:0] if case[other].ndim else case[other] for other in case.names})
    assert validate_file(tmp_path / name).status == "fail"
    np.savez(tmp_path / "hired_small.npz", keep=np.array(3))
    assert "no case" in validate_file(tmp_path / "hired_small.npz").detail


def test_a_whole_model_without_its_weights_fails_and_names_them(tmp_path: Path):
    (path,) = GOLDEN.glob("fastv_case01*.npz")
    shutil.copy(path, tmp_path)
    result = validate_file(tmp_path / path.name)
    assert result.status == "fail" and "fastv_weights_m1_L6_H4_KV4.npz" in result.detail


def test_weights_of_another_model_fail(tmp_path: Path):
    (path,) = GOLDEN.glob("fastv_case01*.npz")
    shutil.copy(path, tmp_path)
    shutil.copy(GOLDEN / "pact_weights_m5_L6_H4_KV2.npz", tmp_path / "fastv_weights_m1_L6_H4_KV4.npz")
    assert validate_file(tmp_path / path.name).status == "fail"


def test_a_folder_is_judged_file_by_file(tmp_path: Path):
    for name in ("divprune_n64_k16.npz", "aim_merge_r0.npz", "README.md"):
        shutil.copy(GOLDEN / name, tmp_path)
    assert [(result.file, result.status) for result in validate_folder(tmp_path)] == [
        ("aim_merge_r0.npz", "pass"), ("divprune_n64_k16.npz", "pass")
    ]  # fmt: skip


def test_an_empty_or_missing_folder_is_a_usage_error(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError, match=r"\.npz"):
            validate_folder(folder)
