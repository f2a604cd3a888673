"""`harness bench`: latency, memory and FLOPs by stage of many methods on one synthetic picture; no data needed."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from harness.cli.interrupts import graceful_stop
from harness.cli.options import budgets_of, filled, methods_of, revised, scenes_of, takes
from harness.cli.printing import print_json, print_rows, tell
from harness.records.errors import Interrupted, UsageError
from harness.request.options import Attention, Dtype, Flag, RunOptions

if TYPE_CHECKING:
    from harness.latency.table import Book, Stage

GPU = "gpu"
_PRESETS = {
    GPU: {
        "model": ("internvl3-1b", "qwen3-vl-2b", "llava-1.5-7b"),
        "methods": "fastv,pact,divprune,visionzip,quietprune,vprune",
        "budget": "50%,25%",
        "image_size": "448,1344",
        "attention": ("sdpa", "eager"),
        "random_weights": True,
        "sessions": 5,
        "minutes": 9.5,
        "out": Path("results/bench-gpu.json"),
    }
}
_QUICK_MINUTES = 5.0


@dataclass(frozen=True, kw_only=True)
class BenchWords(RunOptions):
    """The grid of a latency table. One attention or several: A,B."""

    model: Annotated[tuple[str, ...], Flag("Short names (`harness list models`), folders or hub ids.")] = ()
    random_weights: Annotated[bool, Flag("Real sizes, seeded random weights, nothing downloaded.")] = False
    methods: Annotated[str, Flag("Methods, NAME or NAME:PRESET, or all.", metavar="A,B")] = "all"
    budget: Annotated[str, Flag("Budgets, as for run.", metavar="A,B")] = "50%"
    image_size: Annotated[str, Flag("Sizes of the picture in pixels.", metavar="W[xH],...")] = "448"
    attention: Annotated[tuple[str, ...], Flag(f"{', '.join(get_args(Attention))}.")] = ("sdpa",)  # type: ignore[assignment]
    dtype: Annotated[Dtype | None, Flag("Default: bfloat16, on a CPU float32.")] = None  # type: ignore[assignment]
    text_tokens: Annotated[int, Flag("Words of the question, one text token each.", least=1)] = 40
    minutes: Annotated[float | None, Flag("Time for everything. Default: 5.", least=0.001)] = None
    preset: Annotated[str | None, Flag("gpu: the table for one GPU in under 10 minutes.")] = None
    out: Annotated[Path | None, Flag("A JSON file that holds the rows; what it has is not redone.")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset is not None and self.preset not in _PRESETS:
            raise UsageError(f"unknown preset {self.preset!r}; presets: {', '.join(_PRESETS)}")
        if self.revision is not None and self.random_weights:
            raise UsageError("--revision is of published weights; leave it out with --random-weights")

    def stages(self) -> list[Stage]:
        """Every model with every attention, on this machine. Raises UsageError, EnvironmentProblem."""
        from harness.latency.table import Stage

        stages = [
            Stage(name, self.random_weights, attention=word, device=self.device, image_backend=self.image_backend)
            for name in revised(self.model, self.revision)
            for word in self.attention
        ]
        here = [stage.resolved() for stage in stages]
        return [replace(one, dtype=self.dtype or ("float32" if one.device == "cpu" else "bfloat16")) for one in here]


@takes(BenchWords, "seed", "limit", "data_dir", "stream", "timing", "store", "force")
def bench(context: typer.Context, asked: BenchWords) -> None:
    """Time methods against no pruning, in pairs, on synthetic prompts of real shapes. Accuracy is not told.

    Several sessions run in fresh processes, a round of all cells after the other, until the time is up.
    """
    asked = filled(context, asked, _PRESETS[asked.preset] if asked.preset else {})
    if not asked.model:
        raise UsageError("say which model: --model internvl3-1b --random-weights, or --preset gpu")
    budgets, scenes = budgets_of(asked.budget), scenes_of(asked.image_size, asked.text_tokens)
    from harness.cli.method_errors import method_errors
    from harness.latency.protocol import Protocol
    from harness.latency.table import Book, grid
    from harness.latency.table_run import measure
    from harness.models.quiet import quiet_transformers

    quiet_transformers()
    stages, sessions = asked.stages(), asked.sessions or 1
    seconds = None if asked.pairs and asked.minutes is None else (asked.minutes or _QUICK_MINUTES) * 60
    with (
        method_errors(),
        graceful_stop(lambda: tell("stopping after this prefill; Ctrl-C again stops at once")) as stop,
    ):
        book = Book(asked.out, grid(stages, scenes, methods_of(asked.methods), budgets))
        rounds = book.missing(sessions)
        left, cells, where = sum(map(len, rounds)), len(rounds[0]) or len(book.rows), stages[0]
        tell(f"{left} sessions of {cells} cells are left on {where.device}, {where.dtype}")
        try:
            for outcome in measure(rounds, Protocol(asked.pairs, seconds=seconds or 1e9), sessions > 1, stop):
                _tell_row(book.add(outcome))
        except Interrupted as error:
            raise Interrupted(f"{error}\nharness: go on with: {shlex.join(['harness', *sys.argv[1:]])}") from error
    left = sum(map(len, book.missing(sessions)))
    if left:
        tell(f"{left} sessions are left{'; the same command goes on with them' if asked.out else ''}")
    _print(book, asked)


def _print(book: Book, asked: BenchWords) -> None:
    if asked.json:
        print_json([{key: value for key, value in row.items() if key != "sessions"} for row in book.rows])
    else:
        for title, rows in _tables(book.rows).items():
            print(title)
            print_rows([_cells(row) for row in rows], list(_cells(rows[0])))
        _tell_sources(book.rows)
    if asked.out:
        tell(f"rows are in {asked.out}")


def _tables(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows under what they share."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        weights = "random weights" if row["random_weights"] else row.get("model_revision", "")[:12]
        picture = "x".join(map(str, row["image_px"]))
        shared = (row["model"], weights, f"{picture} px", row["attention"], row["dtype"], row["device"])
        tables.setdefault(" · ".join(shared), []).append(row)
    return tables


def _tell_row(row: dict[str, Any]) -> None:
    where = f"{row['model']} {row['attention']} {'x'.join(map(str, row['image_px']))} {row['method']} {row['budget']}"
    tell(f"{where}: {_result(row)}")


def _result(row: dict[str, Any]) -> str:
    """ "28.1 % faster ..." in words, or why there is nothing to tell."""
    if row["latency"] is None:
        return f"{row['status']}: {row['message']}"
    return f"{_interval(row['latency'])}, {row['verdict']}"


def _interval(latency: dict[str, Any]) -> str:
    if latency["low"] is None:
        return f"LR {latency['lr']:+.1%}"
    return f"LR {latency['lr']:+.1%} [{latency['low']:+.1%}, {latency['high']:+.1%}]"


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """A row as people read it: milliseconds, base -> pruned where they differ."""
    latency, paper = row["latency"], row["published"]
    short = {
        "method": f"{row['method']}:{row['preset']}" if row.get("preset") else row["method"],
        "budget": row["budget"],
    }
    paper_words = "–" if paper is None else f"{paper['lr']:+.1%}"
    if latency is None:
        return {**short, "LR": row["status"], "verdict": "–", "paper LR": paper_words, **_no_numbers()}
    base, pruned = latency["base_ms"], latency["pruned_ms"]
    return {
        **short,
        "LR": _interval(latency).removeprefix("LR "),
        "verdict": row["verdict"] + (" (indicative)" if latency["indicative"] else ""),
        "paper LR": paper_words,
        "total ms": f"{base['total']:.1f} → {pruned['total']:.1f}",
        **{name: f"{base.get(stage, 0):.1f} → {pruned.get(stage, 0):.1f}" for name, stage in _STAGES.items()},
        "FLOPs ratio": row["flops_ratio"],
        "KV MiB": " → ".join(f"{latency['kv_cache_bytes'][arm] / 2**20:.1f}" for arm in ("base", "pruned")),
        "peak MiB": _mebibytes(row),
    }


_STAGES = {"ViT": "vit", "projector": "projector", "select": "select", "LLM": "llm_prefill"}


def _no_numbers() -> dict[str, str]:
    return dict.fromkeys(("total ms", *_STAGES, "FLOPs ratio", "KV MiB", "peak MiB"), "–")


def _mebibytes(row: dict[str, Any]) -> str:
    """Peaks of both arms on an accelerator; the process's own on a CPU, where arms cannot be told apart."""
    peaks = [row["latency"]["peak_bytes"][arm] for arm in ("base", "pruned")]
    if None in peaks:
        return f"{row['host_peak_rss_bytes'] / 2**20:.0f} (process)"
    return " → ".join(f"{peak / 2**20:.0f}" for peak in peaks)


def _tell_sources(rows: list[dict[str, Any]]) -> None:
    for doubt in dict.fromkeys(row["latency"]["indicative_because"] for row in rows if row["latency"]):
        if doubt:
            tell(f"indicative, not for a leaderboard: {doubt}")
    for source in dict.fromkeys(row["published"]["source"] for row in rows if row["published"]):
        tell(f"paper LR, a reference and not our measurement: {source}")
