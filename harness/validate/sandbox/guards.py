"""What a method has no business doing ends its process at once, with the reason.

An audit hook sees what Python code does through Python. It is no wall: machine code gets past it. The walls are the
limits and namespaces around the process; this says in words what was tried.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

_PROCESSES = {
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess.Popen",
}  # fmt: skip
_NETWORK = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "poplib.", "imaplib.", "nntplib.", "telnetlib.")
_REACHES = {"os.kill", "os.killpg", "os.setpriority", "signal.pthread_kill", "resource.setrlimit", "resource.prlimit"}
_CHANGES = {
    "os.chflags", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.removexattr", "os.rename", "os.rmdir",
    "os.setxattr", "os.symlink", "os.truncate", "os.utime",
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def arm(folder: str, stop: Callable[[str], None]) -> None:
    """From now on whatever this process may not do calls `stop` with the reason; `stop` does not come back.

    folder: the one place where files may be written. It cannot be disarmed.
    """
    inside = os.path.realpath(folder) + os.sep
    real, writing, null = os.path.realpath, _WRITING, os.devnull

    def is_outside(path: Any) -> bool:
        if not isinstance(path, str | bytes):
            return False  # a file that is open already
        path = os.fsdecode(path)
        return path != null and not (real(path) + os.sep).startswith(inside)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if arguments[2] & writing and is_outside(arguments[0]):
                stop(f"it opens a file outside its folder for writing: {os.fsdecode(arguments[0])}")
        elif event in _CHANGES:
            for path in arguments:
                if is_outside(path):
                    stop(f"it changes files outside its folder ({event}): {os.fsdecode(path)}")
        elif event in _PROCESSES:
            stop(f"it starts a process ({event})")
        elif event in _REACHES:
            stop(f"it reaches for other processes or its own limits ({event})")
        elif event.startswith(_NETWORK):
            stop(f"it uses the network ({event})")
        elif event.startswith("ctypes."):
            stop(f"it calls machine code ({event})")
        elif event == "pickle.find_class":
            stop("it unpickles objects, which runs what a file says; keep tensors as safetensors")

    sys.addaudithook(watch)


OURS = ("methods", "harness")
OTHERS = ("builtins", "io", "json", "os", "sys", "time", "torch", "torch.nn", "torch.nn.functional")
RANDOM_STATE = "torch's random state"
CLASSES = ("torch.Tensor", "torch.nn.Module")


@dataclass(frozen=True)
class Surroundings:
    """What stood where at one moment. places: "torch.topk" -> the object; settings: "torch's thread count" -> 1."""

    places: Mapping[str, Any]
    settings: Mapping[str, Any]

    def difference(self, later: Surroundings, but: str = "") -> str:
        """The first thing that is another later, but for one; "" where nothing is. What is new is no difference."""
        for name, value in self.settings.items():
            if name != but and later.settings[name] != value:
                return name
        for name, value in self.places.items():
            if later.places.get(name) is not value:
                return name
        return ""


def surroundings() -> Surroundings:
    """What stands where now."""
    return Surroundings(
        dict(_places()),
        {
            RANDOM_STATE: torch.get_rng_state().numpy().tobytes(),
            "torch's default dtype": torch.get_default_dtype(),
            "torch's gradient mode": torch.is_grad_enabled(),
            "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
            "torch's thread count": torch.get_num_threads(),
            "the recursion limit": sys.getrecursionlimit(),
            "the names in torch.Tensor": set(vars(torch.Tensor)),  # one more hides that of a base
        },
    )


def _places() -> Iterator[tuple[str, Any]]:
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or not (name.partition(".")[0] in OURS or name in OTHERS):
            continue
        yield f"module {name}", module
        for key, value in list(vars(module).items()):
            if not callable(value):
                continue
            yield f"{name}.{key}", value
            if isinstance(value, type) and (value.__module__ == name or f"{name}.{key}" in CLASSES):
                yield from ((f"{name}.{key}.{part}", held) for part, held in vars(value).items() if callable(held))
