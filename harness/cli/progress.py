"""A progress bar with the time that is left, on stderr."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.cli.printing import tell


class Bar:
    """A `Watcher` for people. Where stderr is no terminal it says one line as a pass begins."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress: Progress | None = None

    def begins(self, title: str, total: int, done: int) -> None:
        if not self._console.is_terminal:
            tell(f"{title}: {total - done} of {total} to do")
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task(title, total=total, completed=done)
        self._progress.start()

    def advanced(self, steps: int = 1) -> None:
        if self._progress is not None:
            self._progress.advance(self._task, steps)

    def ends(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
