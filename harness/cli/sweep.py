"""`harness sweep`: many runs from one grid; what is done is not done again."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options
from harness.cli.interrupts import graceful_stop
from harness.cli.options import revised
from harness.cli.printing import print_json, tell
from harness.records.errors import DiskFull, Interrupted, UsageError
from harness.request.settings import check_attention, check_image_backend, device_of

if TYPE_CHECKING:
    from harness.records.progress import Stop
    from harness.store.database import Store
    from harness.sweep.grid import Entry
    from harness.sweep.loop import Report
    from harness.sweep.workers import Crew

ENGINES = ("local", "ray")


def sweep(
    grid: Annotated[Path | None, typer.Argument(metavar="GRID.toml", help="A grid; flags override its keys.")] = None,
    methods: Annotated[str | None, typer.Option(metavar="A,B", help="Methods, NAME or NAME:PRESET, or all.")] = None,
    budgets: Annotated[str | None, typer.Option(metavar="A,B", help="Budgets, as for run: 50%,25%,native.")] = None,
    models: Annotated[str | None, typer.Option(metavar="A,B", help="Models. Default: reference-a.")] = None,
    revision: options.Revision = None,
    benchmarks: Annotated[str | None, typer.Option(metavar="A,B", help="Default: reference-quick.")] = None,
    data_dir: options.DataDir = None,
    stream: options.Stream = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of stochastic methods. Default: 3.")] = None,
    no_controls: Annotated[bool, typer.Option("--no-controls", help="Leave out random, grid, pool, ...")] = False,
    limit: options.Limit = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    attention: Annotated[str | None, typer.Option(help="sdpa, eager or flash_attention_2.")] = None,
    image_backend: Annotated[str | None, typer.Option(help="Who prepares images: pil or torchvision.")] = None,
    pairs: options.Pairs = None,
    sessions: options.Sessions = None,
    minutes: options.Minutes = None,
    no_timing: options.NoTiming = False,
    redo_stale: Annotated[bool, typer.Option("--redo-stale", help="Redo what only older code has answered.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is left and how long it may take.")] = False,
    engine: Annotated[str, typer.Option(help="Who does the work: local or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="A Ray cluster. Default: Ray on this machine alone.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer at the same time.")] = 1,
    shard_samples: Annotated[
        int | None, typer.Option(min=1, help="Let workers share a run with more samples than this. Default: no run.")
    ] = None,
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Run every method at every budget, with controls. What is done is not done again; what was cut off goes on."""
    _check_engine(engine, address)
    flags = {
        "methods": _split(methods), "budgets": _split(budgets), "models": _split(models),
        "benchmarks": _split(benchmarks), "data_dir": data_dir and str(data_dir), "stream": stream or None,
        "seeds": seeds, "controls": False if no_controls else None, "limit": limit,
        "dtype": dtype, "device": device, "attention": attention, "image_backend": image_backend,
        "timing": False if no_timing else None, "pairs": pairs, "sessions": sessions, "minutes": minutes,
    }  # fmt: skip
    from harness.cli.stores import open_store
    from harness.cli.sweep_telling import document, watching
    from harness.models.quiet import quiet_transformers
    from harness.sweep.loop import conduct

    quiet_transformers()
    entries, where = _cells(grid, flags, revision)
    opened = open_store(store)
    with graceful_stop(lambda: tell("stopping after the running samples; Ctrl-C again stops at once")) as stop:
        crew = _ray(opened, workers, where, address) if engine == "ray" else _local(opened, stop, workers, where)
        how = {"redo_stale": redo_stale, "dry": dry_run, "shard_samples": shard_samples}
        try:
            with watching(len(entries), workers) as observer:
                report = conduct(entries, opened, crew, observer, stop, **how)
        except Interrupted as error:
            raise Interrupted(f"{error}\n{_resume()}") from error
        finally:
            crew.close()
    _finish(report, document(report, opened, dry_run, workers), json)


def _check_engine(engine: str, address: str | None) -> None:
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}; use one of {', '.join(ENGINES)}")
    if address is not None and engine != "ray":
        raise UsageError("--address is for --engine ray")


def _cells(grid: Path | None, flags: Mapping[str, Any], revision: str | None) -> tuple[list[Entry], str]:
    """The cells of a grid file under the flags that are not None, and the device that they run on."""
    from harness.cli.method_errors import method_errors
    from harness.latency.session import protocol_for
    from harness.sweep.grid import GridWords, entries_of, read_grid

    with method_errors():
        given = {key: value for key, value in flags.items() if value is not None}
        words = GridWords(**{**(read_grid(grid) if grid else {}), **given})
        words = replace(words, models=revised(words.models, revision))
        check_attention(words.attention)
        check_image_backend(words.image_backend)
        where = device_of(words.device)
        timing = protocol_for(where, words.pairs, words.sessions, words.minutes) if words.timing else None
        return entries_of(words, where, timing), where


def _finish(report: Report, told: Mapping[str, Any], json: bool) -> None:
    """Say how a sweep ended, and leave with the exit code that it deserves."""
    from harness.cli.sweep_telling import print_summary, tell_summary

    if json:
        print_json(told)
    else:
        print_summary(told)
    tell_summary(told)
    if report.disk_full:
        raise DiskFull(f"{report.stopped}\n{_resume()}")
    if report.stopped:
        raise Interrupted(f"{report.stopped}\n{_resume()}")
    if told["failed"]:
        raise typer.Exit(1)


def _ray(store: Store, workers: int, device: str, address: str | None) -> Crew:
    from harness.models.quiet import quiet_transformers
    from harness.sweep.ray_workers import RayCrew
    from harness.sweep.workers import Start

    share = 1.0 if address is not None else min(1.0, max(1, len(_gpus())) / workers)
    start = Start(store.path.resolve(), setup=quiet_transformers)
    return RayCrew(workers, start, address, share if device.startswith("cuda") else 0.0)


def _local(store: Store, stop: Stop, workers: int, device: str) -> Crew:
    from harness.models.quiet import quiet_transformers
    from harness.sweep.workers import Alone, Processes, Start

    if workers == 1:
        return Alone(store.path, stop)
    return Processes(workers, Start(store.path, None, _gpus() if device == "cuda" else (), quiet_transformers))


def _gpus() -> tuple[str, ...]:
    """The names of the visible GPUs, when there are several to share."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return tuple(names) if len(names) > 1 else ()


def _split(words: str | None) -> tuple[str, ...] | None:
    return None if words is None else tuple(word.strip() for word in words.split(",") if word.strip())


def _resume() -> str:
    return f"harness: continue with: {shlex.join(['harness', *sys.argv[1:]])}"
