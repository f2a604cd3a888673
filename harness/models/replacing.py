"""An attribute of one instance for the time of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MISSING = object()


@contextmanager
def replaced(instance: Any, name: str, value: Any) -> Iterator[None]:
    """Within the block the instance's own `name` is `value`; what the instance had before comes back."""
    own = vars(instance)
    before = own.get(name, _MISSING)
    own[name] = value
    try:
        yield
    finally:
        if before is _MISSING:
            del own[name]
        else:
            own[name] = before
