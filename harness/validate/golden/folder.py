"""A folder of golden files, each judged by the check that its name calls for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from harness.records.errors import UsageError
from harness.validate.golden.case import GoldenCase, Mismatch, NotAssertable
from methods.base import PruningError

PASS, FAIL, WEIGHTS, NOT_ASSERTABLE = "pass", "fail", "weights", "not_assertable"

# Beginning of a file's name -> the module in this folder and the function in it that judges it.
CHECKS: dict[str, tuple[str, str]] = {
    "aim_e2e_": ("aim", "whole_model"),
    "aim_importance_": ("aim", "importance"),
    "aim_merge_": ("aim", "merge"),
    "aim_prune_schedule_": ("aim", "schedule"),
    "cdpruner_": ("cdpruner", "kept"),
    "divprune_": ("divprune", "kept"),
    "fastervlm_anyres_order_": ("fastervlm", "tiles"),
    "fastervlm_small": ("fastervlm", "small"),
    "fastervlm_": ("fastervlm", "kept"),
    "fastv_case": ("fastv", "whole_model"),
    "hired_attention_": ("hired", "attention"),
    "hired_next_": ("hired", "tiles"),
    "hired_": ("hired", "small"),
    "hiprune_llava_": ("hiprune", "llava"),
    "hiprune_qwen25_": ("hiprune", "qwen"),
    "holov_small": ("holov", "small"),
    "holov_": ("holov", "kept"),
    "pact_dbdpc_": ("pact", "clusters"),
    "pact_e2e_": ("pact", "whole_model"),
    "pdrop_case": ("pyramiddrop", "whole_model"),
    "pixelprune_": ("pixelprune", "kept"),
    "prunesid_": ("prunesid", "kept"),
    "saint_fullgraph_": ("saint", "full_graph"),
    "saint_llm_": ("saint", "in_llm"),
    "saint_vit_": ("saint", "in_vit"),
    "scope_": ("scope", "kept"),
    "sparsevlm_e2e_": ("sparsevlm", "whole_model"),
    "sparsevlm_merge_": ("sparsevlm", "merge"),
    "sparsevlm_topk_": ("sparsevlm", "scores"),
    "tome_r_schedules": ("tome", "schedules"),
    "tome_": ("tome", "merged"),
    "visionzip_case": ("visionzip", "in_front"),
    "visionzip_layer_case": ("visionzip", "layer"),
    "visionzip_qwen25_case": ("visionzip", "qwen"),
    "vispruner_": ("vispruner", "kept"),
    "vtw_e2e_": ("vtw", "whole_model"),
    "vtw_edge_": ("vtw", "whole_model"),
    "vtw_findk_": ("vtw", "divergence"),
}
WEIGHT_FILES = ("fastv_weights_", "pact_weights_", "pdrop_weights_", "sparsevlm_weights_")

# What arrays of the wrong shape, type or value make of our maths: a file may hold anything.
NONSENSE = (ArithmeticError, AssertionError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class FileResult:
    """One file. status: "pass" | "fail" | "weights" | "not_assertable"; detail: what differed, or what cannot be."""

    file: str
    status: str
    detail: str = ""


def validate_folder(folder: Path) -> Iterator[FileResult]:
    """Every .npz of a folder, by name. Raises UsageError where there is none."""
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}; give one with golden .npz files, such as tests/golden")
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise UsageError(f"no .npz file in {folder}; golden files are named like divprune_n64_k16.npz")
    return map(validate_file, paths)


def validate_file(path: Path) -> FileResult:
    """What one file says of our method. Never raises: whatever is wrong with a file is its result."""
    check = check_of(path.name)
    try:
        case = GoldenCase(path)
        if path.name.startswith(WEIGHT_FILES):
            return FileResult(path.name, WEIGHTS, _weights(case))
        if check is None:
            return FileResult(
                path.name, NOT_ASSERTABLE, "no check goes by this name (tests/golden/README.md lists those known)"
            )
        check(case)
        if not any(case.size_of(name) for name in case.read):
            raise Mismatch("its arrays are empty, so that nothing was compared")
    except NotAssertable as limit:
        return FileResult(path.name, NOT_ASSERTABLE, str(limit))
    except (Mismatch, PruningError) as error:
        return FileResult(path.name, FAIL, str(error))
    except NONSENSE as error:
        reason = (str(error).splitlines() or [""])[0]
        return FileResult(path.name, FAIL, f"its arrays do not fit: {type(error).__name__}: {reason}")
    return FileResult(path.name, PASS)


def check_of(name: str) -> Callable[[GoldenCase], None] | None:
    """The check of a file's name, None if there is none."""
    for prefix, (module, function) in CHECKS.items():
        if name.startswith(prefix):
            return getattr(import_module(f"harness.validate.golden.{module}"), function)
    return None


def _weights(case: GoldenCase) -> str:
    if not case.names or not all("__" in name for name in case.names):
        raise Mismatch("holds no weights; their names are written a__b__c")
    return f"{len(case.names)} tensors, read by the files that name it"
