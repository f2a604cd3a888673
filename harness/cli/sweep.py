"""`harness sweep`: many runs from one grid; what is done is not done again."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.cli.interrupts import graceful_stop
from harness.cli.options import filled, revised, takes
from harness.cli.printing import print_json, tell
from harness.records.errors import DiskFull, Interrupted, UsageError
from harness.request.options import Flag
from harness.sweep.words import GridWords, read_grid

if TYPE_CHECKING:
    from harness.records.progress import Stop
    from harness.store.database import Store
    from harness.sweep.loop import SweepReport
    from harness.sweep.workers import Crew


@dataclass(frozen=True, kw_only=True)
class SweepWords(GridWords):
    """A grid, and who does it how."""

    redo_stale: Annotated[bool, Flag("Redo what only older code has answered.")] = False
    dry_run: Annotated[bool, Flag("Only say what is left and how long it may take.")] = False
    engine: Annotated[Literal["local", "ray"], Flag("Who does the work.")] = "local"
    address: Annotated[str | None, Flag("A Ray cluster. Default: Ray on this machine alone.")] = None
    workers: Annotated[int, Flag("Processes that answer at the same time.", least=1)] = 1
    shard_samples: Annotated[
        int | None, Flag("Let workers share a run with more samples than this. Default: no run.", least=1)
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address is not None and self.engine != "ray":
            raise UsageError("--address is for --engine ray")


@takes(SweepWords, "seed", "force")
def sweep(
    context: typer.Context,
    asked: SweepWords,
    grid: Annotated[Path | None, typer.Argument(metavar="GRID.toml", help="A grid; flags override its keys.")] = None,
) -> None:
    """Run every method at every budget, with controls. What is done is not done again; what was cut off goes on."""
    from harness.cli.method_errors import method_errors
    from harness.cli.stores import open_store
    from harness.cli.sweep_telling import document, watching
    from harness.latency.session import protocol_for
    from harness.models.quiet import quiet_transformers
    from harness.sweep.grid import entries_of
    from harness.sweep.loop import conduct

    quiet_transformers()
    with method_errors():
        asked = filled(context, asked, read_grid(grid) if grid else {}).resolved()
        asked = replace(asked, models=revised(asked.models, asked.revision))
        entries = entries_of(asked, protocol_for(asked) if asked.timing else None)
    opened = open_store(asked.store)
    with graceful_stop(lambda: tell("stopping after the running samples; Ctrl-C again stops at once")) as stop:
        crew = _ray(opened, asked) if asked.engine == "ray" else _local(opened, stop, asked)
        how = {"redo_stale": asked.redo_stale, "dry": asked.dry_run, "shard_samples": asked.shard_samples}
        try:
            with watching(len(entries), asked.workers) as observer:
                report = conduct(entries, opened, crew, observer, stop, **how)
        except Interrupted as error:
            raise Interrupted(f"{error}\n{_resume()}") from error
        finally:
            crew.close()
    _finish(report, document(report, opened, asked.dry_run, asked.workers), asked.json)


def _finish(report: SweepReport, told: Mapping[str, Any], json: bool) -> None:
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


def _ray(store: Store, asked: SweepWords) -> Crew:
    from harness.models.quiet import quiet_transformers
    from harness.sweep.ray_workers import RayCrew
    from harness.sweep.workers import Start

    share = 1.0 if asked.address is not None else min(1.0, max(1, len(_gpus())) / asked.workers)
    start = Start(store.path.resolve(), setup=quiet_transformers)
    return RayCrew(asked.workers, start, asked.address, share if asked.device.startswith("cuda") else 0.0)


def _local(store: Store, stop: Stop, asked: SweepWords) -> Crew:
    from harness.models.quiet import quiet_transformers
    from harness.sweep.workers import Alone, Processes, Start

    if asked.workers == 1:
        return Alone(store.path, stop)
    gpus = _gpus() if asked.device == "cuda" else ()
    return Processes(asked.workers, Start(store.path, None, gpus, quiet_transformers))


def _gpus() -> tuple[str, ...]:
    """The names of the visible GPUs, when there are several to share."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return tuple(names) if len(names) > 1 else ()


def _resume() -> str:
    return f"harness: continue with: {shlex.join(['harness', *sys.argv[1:]])}"
