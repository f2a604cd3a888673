"""Places on this machine as a record may hold them: without the user's home folder, which names the user."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def without_home(value: Any, home: Path | None = None) -> Any:
    """A text, or every text in a mapping or list, with "~" for the home folder wherever it stands."""
    home = home or Path.home()
    match value:
        case str() if len(home.parts) > 1:
            folder = "|".join({re.escape(str(home)), re.escape(os.path.realpath(home))})
            return re.sub(rf"(?<![\w.~-])(?:{folder})(?![\w.-])", "~", value)
        case Mapping():
            return {key: without_home(item, home) for key, item in value.items()}
        case list() | tuple():
            return (list if isinstance(value, list) else tuple)(without_home(item, home) for item in value)
        case _:
            return value


def recorded_method(name: str) -> str:
    """A method as a run's identity has it: a name, or the shortest path: "./mine.py:Class", else "~/mine.py"."""
    path, colon, kind = name.partition(":")
    if not path.endswith(".py"):
        return name
    place, here = Path(path).expanduser().absolute(), Path.cwd()
    if not place.is_relative_to(here):
        return without_home(f"{place}{colon}{kind}")
    return f"./{place.relative_to(here).as_posix()}{colon}{kind}"
