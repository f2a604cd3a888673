"""The store that a command uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.store.database import Store


def open_store(path: Path | None) -> Store:
    """The store at `path`, or the default one. What it repairs is told on stderr."""
    from harness.cli.printing import tell
    from harness.store.database import Store, default_store_path

    return Store(path or default_store_path(), tell=tell)
