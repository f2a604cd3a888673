"""Models by name: the embedded ones, the catalogue's short names, local folders, hub ids. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from harness.models import catalogue
from harness.records.errors import UnknownModel, nearest
from harness.reference.paths import MODELS

EMBEDDED = {f"reference-{letter}": folder for letter, folder in MODELS.items()}


def resolve(name: str | Path) -> str:
    """Folder or hub id behind a name, "@revision" left on. Raises UnknownModel with the nearest names."""
    text = str(name)
    if text in EMBEDDED:
        return str(EMBEDDED[text])
    short, at, revision = text.partition("@")
    published = catalogue.find(short)
    if published is not None:
        return published.hub_id + at + revision
    if Path(text).expanduser().is_dir():  # records say ~ for the home folder
        return str(Path(text).expanduser())
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return text
    known = [*EMBEDDED, *catalogue.names()]
    raise UnknownModel(
        f"no model {text!r}; nearest: {nearest(text, known)}. A local folder or a hub id (owner/name) works too"
    )


def parted(source: str) -> tuple[str, str]:
    """(folder or hub id, revision) of what `resolve` gave; "main" where none was named."""
    if Path(source).is_dir():
        return source, "main"
    hub_id, _, revision = source.partition("@")
    return hub_id, revision or "main"
