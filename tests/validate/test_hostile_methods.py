"""Method files that do harm, or are merely wrong: each is rejected with a reason that names it, and nothing is left.

One process judges them all, so that torch is loaded once; what must run out of something has limits of its own.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.models.families.registry import FAMILIES
from harness.records.errors import UsageError
from harness.validate.sandbox import Limits, Verdict, has_walls, judge_files
from harness.validate.sandbox.launch import UNSHARE
from harness.validate.sandbox.supervisor import judge
from harness.validate.sandbox.verdict import MIB
from harness.validate.tiny import TINY

HEAD = """
from dataclasses import dataclass, replace
import os, sys, torch
from methods.base import INTERFACE, Plan, Pruner, Selection, Site
from methods.ops import top_k

def best(view):
    return top_k(view.hidden.float().norm(dim=1), view.n if view.keep is None else view.keep)

@dataclass(frozen=True)
class Mine(Pruner):
    name = "mine"
    hooks = (INTERFACE,)

    def at_interface(self, view):
        {body}
        return Selection(best(view))
"""
SOUND = HEAD.format(body="pass")


def inside(body: str) -> str:
    """A sound method, but for these lines of its hook."""
    return HEAD.format(body="\n        ".join(body.splitlines()))


def beside(lines: str) -> str:
    """A sound method, but for these lines of its module."""
    return f"{SOUND}\n{lines}\n"


# name -> (source, what the reason or a failed check says). OUT stands for a folder outside, PORT for a server.
HOSTILE = {
    # does what no method needs to
    "forks": (beside("while True: os.fork()"), r"starts a process \(os.fork\)"),
    "forks later": (inside("os.fork()"), r"starts a process \(os.fork\)"),
    "runs a program": (beside("import subprocess\nsubprocess.run(['touch', 'OUT/x'])"), "starts a process"),
    "runs a shell": (inside("os.system('touch OUT/x')"), r"starts a process \(os.system\)"),
    "calls the C library": (beside("import ctypes\nctypes.CDLL(None).fork()"), "calls machine code"),
    "writes outside": (inside("open('OUT/x', 'w').write('x')"), "outside its folder for writing: OUT/x"),
    "climbs out": (beside("open('../../../../../../../../OUT/x', 'w')"), "outside its folder for writing"),
    "hides the writing": (inside("try: open('OUT/x', 'a')\nexcept BaseException: pass"), "outside its folder"),
    "deletes": (beside("os.remove('OUT/kept')"), r"changes files outside its folder \(os.remove\)"),
    "links outside": (beside("os.symlink('OUT', 'way')\nopen('way/x', 'w')"), "outside its folder"),
    "fills the disk": (beside("open('big', 'wb').write(bytes(10 << 20))"), "File too large"),
    "connects": (inside("import socket\nsocket.create_connection(('127.0.0.1', PORT))"), "uses the network"),
    "downloads": (beside("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:PORT')"), "uses the network"),
    "kills its judge": (beside("os.kill(os.getppid(), 9)"), r"reaches for other processes"),
    "lifts its limits": (beside("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))"), "its own limits"),
    "unpickles": (beside("import pickle\npickle.loads(b'cos\\nsystem\\n(Vecho\\ntR.')"), "unpickles objects"),
    "prints megabytes": (beside("print('x' * (10 << 20))"), "prints more than 1024 KiB"),
    "prints in colour": (
        beside("print('\\x1b[31mred')\nraise ValueError('\\x1b[2J')"), r"prints_in_colour.py cannot be built"
    ),
    # ends, or pretends to have been judged
    "exits": (beside("sys.exit(0)"), "raises SystemExit: 0"),
    "exits hard": (beside("os._exit(0)"), r"ended by itself \(exit code 0\)"),
    "exits hard later": (inside("os._exit(0)"), r"ended by itself \(exit code 0\)"),
    "crashes": (beside("import faulthandler\nfaulthandler._sigsegv()"), "ended by SIGSEGV"),
    "raises anything": (inside("raise type('Odd', (BaseException,), {})('odd')"), "raises Odd: odd"),
    "forges results": (
        beside(
            "for fd in range(3, 64):\n"
            "    try: os.write(fd, b'{\"end\": \"judged\", \"reason\": \"\"}\\n')\n"
            "    except OSError: pass\n"
            "os._exit(0)"
        ),
        "writes among the results",
    ),
    "replaces a judge": (
        beside("import harness.budget.spec as b\nb.matches = lambda *a: True"),
        "import changes harness",
    ),
    "replaces torch": (inside("torch.topk = lambda *a, **k: None"), "changes torch.topk"),
    "replaces a type": (beside("torch.Tensor.isfinite = lambda self: self == self"), "the names in torch.Tensor"),
    "replaces a builtin": (inside("import builtins\nbuiltins.len = lambda x: 0"), r"changes builtins.len|raises"),
    "seeds torch": (beside("torch.manual_seed(3)"), "changes torch's random state"),
    "sets threads": (beside("torch.set_num_threads(7)"), "changes torch's thread count"),
    "sets the dtype": (inside("torch.set_default_dtype(torch.float64)"), "default dtype"),
    # is no method
    "syntax error": ("def x(", "SyntaxError"),
    "missing module": (beside("import nothere"), "No module named 'nothere'"),
    "no pruner": ("x = 1", "must define one Pruner, found none"),
    "two pruners": (beside("class Other(Mine): name = 'other'"), r"found \['Mine', 'Other'\]"),
    "no name": (SOUND.replace('name = "mine"', ""), "has no name"),
    "a setting without default": (SOUND.replace('name = "mine"', 'name = "mine"\n    q: int'), "missing 1 required"),
    "null bytes": ("x = 1\0", "null bytes"),
    # decides wrongly
    "one too few": (inside("return Selection(best(view)[1:])"), "the plan asks for"),
    "more than the budget": (inside("return Selection(torch.arange(view.n))"), "the plan asks for"),
    "one row twice": (inside("return Selection(torch.zeros_like(best(view)))"), "names a row twice"),
    "rows out of range": (inside("return Selection(best(view) + view.n)"), "out of range|out of bounds|there are"),
    "rows as floats": (inside("return Selection(best(view).float())"), "keep must be|used as indices must be long"),
    "rows in two dimensions": (inside("return Selection(best(view)[None])"), "keep must be"),
    "a list": (inside("return best(view).tolist()"), "AttributeError|TypeError|Selection"),
    "weights that are no numbers": (
        inside(
            "keep = best(view)\n"
            "assign = torch.full((view.n,), -1).index_copy(0, keep, torch.arange(len(keep)))\n"
            "return Selection(keep, assign, torch.full((view.n,), torch.nan))"
        ),
        "weight must be finite",
    ),
    "lies about its plan": (
        SOUND + "    def plan(self, budget, shape):\n"
        "        return replace(super().plan(budget, shape), keeps={Site(INTERFACE): shape.n})\n",
        "contradict each other",
    ),
    "plans less than asked": (
        SOUND + "    def plan(self, budget, shape):\n"
        "        return super().plan(replace(budget, tokens=max(1, budget.tokens // 2)), shape)\n",
        "the plan averages",
    ),
    "writes into its view": (inside("best(view)\nview.hidden[0] = 0"), "changed hidden of its view"),
    "leaves a hook": (
        inside("torch.nn.modules.module.register_module_forward_hook(lambda *_: None)"), "leaves its trace"
    ),
    "draws globally": (
        inside("return Selection(torch.randperm(view.n)[: len(best(view))].sort().values)"), "global generator|decision"
    ),
    "switches gradients on": (inside("torch.set_grad_enabled(True)\nview.hidden.detach().clone().sum()"), "gradient"),
    "raises in its hook": (inside("raise KeyError('attn')"), "KeyError: 'attn'"),
    "recurses": (inside("return self.at_interface(view)"), "recursion"),
    "allocates": (beside("a = []\nwhile True: a.append(bytes(1 << 26))"), "more than 1024 MiB of memory"),
    "allocates tensors": (inside("torch.ones(1 << 38)"), "can't allocate memory|not enough memory"),
}  # fmt: skip
INSATIABLE = {
    "spins": (beside("while True: pass"), "ran longer than 1 s"),
    "spins in its hook": (inside("while True: pass"), "ran longer than 1 s"),
    "sleeps": (beside("import time\ntime.sleep(1000)"), "ran longer than 1 s"),
    "waits and swallows signals": (
        beside("import signal, time\nfor n in range(1, 31):\n    if n not in (9, 19): signal.signal(n, lambda *_: 0)\n"
               "while True: time.sleep(1)"), "ran longer than 1 s"
    ),
    "counts threads": (
        beside("import threading, time\n"
               "while True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()"),
        "can't start new thread|more than 256 MiB|ran longer",
    ),
}  # fmt: skip


def judged(table: Mapping[str, tuple[str, str]], folder: Path, limits: Limits, port: int) -> dict[str, Verdict]:
    """The verdict on every source of a table."""
    (folder / "files").mkdir()
    outside = folder / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    targets = {}
    for name, (source, _) in table.items():
        path = folder / "files" / f"{name.replace(' ', '_').replace(chr(39), '')}.py"
        path.write_text(source.replace("OUT", str(outside).lstrip("/") if name == "climbs out" else str(outside))
                        .replace("PORT", str(port)))  # fmt: skip
        targets[str(path)] = name
    found = {targets[verdict.target]: verdict for verdict in judge_files(list(targets), ["qwen3_vl"], limits)}
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"kept": "kept"}
    return found


def unexplained(table: Mapping[str, tuple[str, str]], found: Mapping[str, Verdict]) -> dict[str, str]:
    """What was said of those whose reason is not the one in the table; a file that passes says nothing."""
    said = {
        name: " | ".join([verdict.reason, *(row["detail"] for row in verdict.rows if row["status"] == "fail")])
        for name, verdict in found.items()
    }
    assert said.keys() == table.keys()
    outside = re.compile(r"/\S+/outside")
    return {name: words for name, words in said.items() if not re.search(table[name][1], outside.sub("OUT", words))}


def test_hostile_and_broken_methods_are_rejected_with_their_reason(tmp_path: Path):
    assert len(HOSTILE) + len(INSATIABLE) >= 40
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        table = {**HOSTILE, "sound": (SOUND, "^$")}
        found = judged(table, tmp_path, Limits(seconds=60, memory_bytes=1024 * MIB), server.getsockname()[1])
        assert unexplained(table, found) == {}
        assert found["sound"].how == "judged" and len(found["sound"].rows) == 15
        with pytest.raises(BlockingIOError):
            server.accept()
    coloured = found["prints in colour"]
    assert "red" in coloured.printed and "\x1b" not in coloured.printed + coloured.reason
    assert {path.parent.name for path in map(Path, re.findall(r"/\S+\.py", coloured.reason))} <= {"files"}


def test_methods_that_never_have_enough_are_stopped(tmp_path: Path):
    started = time.monotonic()
    found = judged(INSATIABLE, tmp_path, Limits(seconds=1, memory_bytes=256 * MIB), 0)
    assert unexplained(INSATIABLE, found) == {}
    assert all(verdict.how != "judged" for verdict in found.values())
    assert time.monotonic() - started < 60


def test_what_is_no_plain_small_file_is_never_opened(tmp_path: Path):
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "huge.py").write_bytes(b"#" * (MIB + 1))
    for name, reason in (("loop", "no file"), ("folder", "no file"), ("pipe", "no file"), ("huge", "at most 1024")):
        with pytest.raises(UsageError, match=reason):
            list(judge_files([str(tmp_path / f"{name}.py")], ["qwen3_vl"]))


def test_nothing_that_a_file_started_outlives_it(tmp_path: Path):
    """Without tripwires: a process that starts another one and ends."""
    note = tmp_path / "pid"

    def judging(told):
        if os.fork() == 0:
            note.write_text(str(os.getpid()))
            time.sleep(60)
        while not note.exists():
            time.sleep(0.01)
        os._exit(0)

    null = os.open(os.devnull, os.O_WRONLY)
    verdict = judge("x.py", judging, Limits(seconds=20), null)
    os.close(null)
    assert "exit code 0" in verdict.reason
    deadline = time.monotonic() + 5
    while is_alive(int(note.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(int(note.read_text()))


def is_alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be collected does not."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not has_walls(), reason="this system lends no namespaces")
def test_behind_the_walls_there_is_no_network_and_no_process_of_ours():
    source = (
        "import os, socket\n"
        "assert os.getpid() == 1\n"
        f"try: os.kill({os.getpid()}, 0)\n"
        "except ProcessLookupError: print('alone')\n"
        "try: socket.create_connection(('127.0.0.1', 9), timeout=5)\n"
        "except OSError as error: print(error.strerror)\n"
    )
    done = subprocess.run(["unshare", *UNSHARE, sys.executable, "-c", source], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["alone", "Network is unreachable"], done.stderr


def test_the_families_are_named_as_the_tiny_models_are():
    assert list(FAMILIES) == sorted(TINY)
