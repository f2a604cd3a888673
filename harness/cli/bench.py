"""`harness bench`: latency, memory and FLOPs by stage of many methods on one synthetic picture; no data needed."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options
from harness.cli.interrupts import graceful_stop
from harness.cli.options import budgets_of, methods_of, revised, scenes_of, split
from harness.cli.printing import print_json, print_rows, tell
from harness.records.errors import Interrupted, UsageError
from harness.request.settings import check_attention, check_image_backend, device_of

if TYPE_CHECKING:
    from harness.latency.table import Book

GPU = "gpu"
_PRESETS = {
    GPU: {
        "model": "internvl3-1b,qwen3-vl-2b,llava-1.5-7b",
        "methods": "fastv,pact,divprune,visionzip,quietprune,vprune",
        "budget": "50%,25%",
        "image_size": "448,1344",
        "attention": "sdpa,eager",
        "random_weights": True,
        "sessions": 5,
        "minutes": 9.5,
        "out": Path("results/bench-gpu.json"),
    }
}
_QUICK_MINUTES = 5.0


@dataclass(frozen=True)
class Asked:
    """The grid in words, a preset's where the command says nothing."""

    model: str = ""
    methods: str = "all"
    budget: str = "50%"
    image_size: str = "448"
    attention: str = "sdpa"
    random_weights: bool = False
    sessions: int = 1
    minutes: float | None = None
    out: Path | None = None


def bench(
    model: options.Models = None,
    revision: options.Revision = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Real sizes, seeded random weights, nothing downloaded.")
    ] = False,
    methods: Annotated[str | None, typer.Option(metavar="A,B", help="Methods or all. Default: all.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="A,B", help="Budgets, as for run. Default: 50%.")] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="W[xH],...", help="Sizes of the picture in pixels. Default: 448.")
    ] = None,
    text_tokens: options.TextTokens = 40,
    dtype: Annotated[str | None, typer.Option(help="Default: bfloat16, on a CPU float32.")] = None,
    device: options.Device = "auto",
    attention: Annotated[str | None, typer.Option(metavar="A,B", help="sdpa, eager, flash_attention_2.")] = None,
    image_backend: options.ImageBackend = "pil",
    pairs: options.Pairs = None,
    sessions: options.Sessions = None,
    minutes: Annotated[float | None, typer.Option(min=0.001, help="Time for everything. Default: 5.")] = None,
    preset: Annotated[str | None, typer.Option(help="gpu: the table for one GPU in under 10 minutes.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A JSON file that holds the rows; what it has is not redone.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Time methods against no pruning, in pairs, on synthetic prompts of real shapes. Accuracy is not told.

    Several sessions run in fresh processes, a round of all cells after the other, until the time is up.
    """
    said = {
        "model": model, "methods": methods, "budget": budget, "image_size": image_size, "attention": attention,
        "random_weights": random_weights or None, "sessions": sessions, "minutes": minutes, "out": out,
    }  # fmt: skip
    if preset is not None and preset not in _PRESETS:
        raise UsageError(f"unknown preset {preset!r}; presets: {', '.join(_PRESETS)}")
    chosen = {key: value for key, value in said.items() if value is not None}
    asked = Asked(**{**(_PRESETS[preset] if preset else {}), **chosen})
    if not asked.model:
        raise UsageError("say which model: --model internvl3-1b --random-weights, or --preset gpu")
    budgets, scenes = budgets_of(asked.budget), scenes_of(asked.image_size, text_tokens)
    for word in split(asked.attention):
        check_attention(word)
    check_image_backend(image_backend)
    if revision is not None and asked.random_weights:
        raise UsageError("--revision is of published weights; leave it out with --random-weights")
    models = revised(split(asked.model), revision)
    from harness.cli.method_errors import method_errors
    from harness.latency.protocol import Protocol
    from harness.latency.table import Book, Stage, grid
    from harness.latency.table_run import measure
    from harness.models.quiet import quiet_transformers

    quiet_transformers()
    where = device_of(device)
    kind = dtype or ("float32" if where == "cpu" else "bfloat16")
    stages = [
        Stage(name, asked.random_weights, kind, where, kernel, image_backend)
        for name in models
        for kernel in split(asked.attention)
    ]
    seconds = None if pairs and asked.minutes is None else (asked.minutes or _QUICK_MINUTES) * 60
    with (
        method_errors(),
        graceful_stop(lambda: tell("stopping after this prefill; Ctrl-C again stops at once")) as stop,
    ):
        book = Book(asked.out, grid(stages, scenes, methods_of(asked.methods), budgets))
        rounds = book.missing(asked.sessions)
        tell(
            f"{sum(map(len, rounds))} sessions of {len(rounds[0]) or len(book.rows)} cells are left on {where}, {kind}"
        )
        try:
            for outcome in measure(rounds, Protocol(pairs, seconds=seconds or 1e9), asked.sessions > 1, stop):
                _tell_row(book.add(outcome))
        except Interrupted as error:
            raise Interrupted(f"{error}\nharness: go on with: {shlex.join(['harness', *sys.argv[1:]])}") from error
    left = sum(map(len, book.missing(asked.sessions)))
    if left:
        tell(f"{left} sessions are left{'; the same command goes on with them' if asked.out else ''}")
    _print(book, asked, json)


def _print(book: Book, asked: Asked, json: bool) -> None:
    if json:
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
