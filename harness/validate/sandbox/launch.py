"""Starting the process that judges method files, with nothing of ours in reach that can be kept from it.

It gets its own session, an empty folder, a bare environment and, where the system allows it, namespaces without a
network and with process ids of its own (`unshare`), so that whatever a file started is gone when it is.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from threading import Timer

from harness.records.errors import EnvironmentProblem, HarnessError, UsageError
from harness.validate.sandbox.verdict import Limits, Verdict

START_SECONDS = 300.0  # for loading torch on a busy machine
SPARE_SECONDS = 10.0  # between two files
DETAIL_CHARACTERS = 500
UNSHARE = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")


def judge_files(targets: Sequence[str], families: Sequence[str], limits: Limits | None = None) -> Iterator[Verdict]:
    """The verdict on every "PATH.py[:Class]", in order, each judged in a process of its own.

    Raises UsageError for a path that holds no file that can be read, EnvironmentProblem where there are no such
    processes (Windows), HarnessError when the judging process itself fails.
    """
    if os.name != "posix":
        raise EnvironmentProblem("limits on a process need Linux or macOS; judge what you trust with --unconfined")
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="judged-") as folder:
        copies = {_copied(target, Path(folder, str(number)), limits): target for number, target in enumerate(targets)}
        asked = {"targets": list(copies), "families": list(families), "limits": asdict(limits), "alone": has_walls()}
        seconds = START_SECONDS + len(targets) * (limits.seconds + SPARE_SECONDS)
        with _warden(Path(folder), seconds) as (process, complaints):
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(asked).encode())
            process.stdin.close()
            for copy, target in copies.items():
                line = process.stdout.readline()
                if not line:
                    complaints.seek(0)
                    last = (complaints.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
                    raise HarnessError(f"the process that judges {target} ended: {_plain(last)}; run the command again")
                found = json.loads(line)
                assert found["target"] == copy
                yield _for_people(Verdict(**found), copy, target)


@cache
def has_walls() -> bool:
    """Whether this system lets us cut the network off and give process ids of their own."""
    program = shutil.which("unshare")
    if program is None:
        return False
    return subprocess.run([program, *UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def _copied(target: str, folder: Path, limits: Limits) -> str:
    """The same target with the file's copy, alone in a folder of its own."""
    name, _, kind = target.partition(":")
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"no file {name}; give the path of a Python file that defines a Pruner")
    if path.stat().st_size > limits.source_bytes:
        raise UsageError(
            f"{name} has {path.stat().st_size / 1024:.0f} KiB, a method file at most {limits.source_bytes / 1024:.0f}"
        )
    folder.mkdir()
    copy = folder / path.name
    try:
        copy.write_bytes(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from error
    return f"{copy}:{kind}" if kind else str(copy)


@contextmanager
def _warden(folder: Path, seconds: float) -> Iterator[tuple[subprocess.Popen[bytes], tempfile.SpooledTemporaryFile]]:
    """The judging process and what it complains of; its group is killed at the end, or after `seconds`."""
    walls = [str(shutil.which("unshare")), *UNSHARE, "--"] if has_walls() else []
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [*walls, sys.executable, "-P", "-m", "harness.validate.sandbox.supervisor"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, cwd=folder, env=_environment(folder),
            start_new_session=True,
        )  # fmt: skip
        watch = Timer(seconds, _kill, [process])
        watch.start()
        try:
            yield process, complaints
        finally:
            watch.cancel()
            _kill(process)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the user's but where shared libraries lie."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return kept | {
        "PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]), "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip


def _for_people(verdict: Verdict, copy: str, target: str) -> Verdict:
    """The verdict with the user's own path, and no character in it that a terminal would obey."""

    def words(text: str) -> str:
        return _plain(text.replace(copy.partition(":")[0], target.partition(":")[0]))[:DETAIL_CHARACTERS]

    rows = tuple({key: words(str(value)) for key, value in row.items()} for row in verdict.rows)
    printed = "\n".join(_plain(line) for line in verdict.printed.splitlines())
    return replace(verdict, target=target, reason=words(verdict.reason), rows=rows, printed=printed)


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
