"""What a method has no business doing ends its process at once, with the reason.

An audit hook sees what Python code does through Python. It is no wall: machine code gets past it. The walls are the
limits and namespaces around the process; this says in words what was tried.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

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
