"""`harness new`: a method file and its test, both working as they are."""

from __future__ import annotations

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.printing import tell


class Hook(StrEnum):
    """Hook points."""

    pre_tokenization = "pre-tokenization"
    in_vit = "in-vit"
    interface = "interface"
    in_llm = "in-llm"


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The method's name: my_method.")],
    hook: Annotated[Hook, typer.Option(help="Where it acts.")] = Hook.interface,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to.")] = Path("."),
) -> None:
    """Write a method that works and a test that passes, NAME.py and test_NAME.py, to start from."""
    from harness.authoring import Scaffold, write

    method, test = write(Scaffold(name, hook.value, out))
    print(method)
    print(test)
    path = shlex.quote(method.as_posix() if method.is_absolute() else os.path.join(".", method.as_posix()))
    tell(f"it works as it is; edit it, and keep its promises: harness validate {path}")
    tell(f"then: harness run --method {path}")
    tell("and with the id which that prints: harness submit RUN")
