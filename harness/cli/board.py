"""`harness board`: the leaderboard on the local store, in a browser or as a static site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options
from harness.cli.printing import tell

LOOPBACK = "127.0.0.1"
START_S = 60.0  # a loaded machine takes its time to import pandas and Plotly
_CALM = {
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "type",
    "theme.light.primaryColor": "#0b62a8",
    "theme.dark.primaryColor": "#6db3ee",
}


def board(
    store: options.Store = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen. Default: a free port.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback show your store.")] = LOOPBACK,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of submissions to show too. Default: results/, with --store none."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a static site there instead; it needs no server.")
    ] = None,
) -> None:
    """Show the leaderboard of a store and of results/ in a browser, or write it as a site that anyone can host."""
    import os
    import signal
    import subprocess
    import sys

    from harness.records.errors import HarnessError
    from harness.store.database import default_store_path

    _check_extra()
    path = (store or default_store_path()).absolute()
    submitted = results or (None if store else _shipped_results())
    given = [str(path), *([str(submitted.absolute())] if submitted else [])]
    if export:
        command = [sys.executable, "-m", "leaderboard.export", given[0], str(export), *given[1:]]
        calm = {**os.environ, "STREAMLIT_LOGGER_LEVEL": "error"}  # it would tell that no server runs
        if subprocess.run(command, check=False, env=calm).returncode:
            raise HarnessError(f"the site in {export} is not whole")
        return
    port = port or _free_port(host)
    if host != LOOPBACK:
        tell(f"listening on {host}: whoever reaches it can read {path}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends with us
    server = subprocess.Popen(_command(given, host, port), stdout=subprocess.DEVNULL)
    try:
        _wait(server, host, port)
        tell(f"the board of {path} is at http://{host}:{port} (Ctrl-C ends it)")
        server.wait()
    except KeyboardInterrupt:
        tell("the board was closed")
    finally:
        server.terminate()
        server.wait()


def _shipped_results() -> Path:
    """The folder with the submissions that came with the code: of a checkout, or of a wheel."""
    from harness.records.provenance import ROOT

    checkout, wheel = ROOT / "results", ROOT / "leaderboard"
    return wheel if (wheel / "submissions").is_dir() else checkout


def _check_extra() -> None:
    """Raises EnvironmentProblem without the packages of the extra."""
    from importlib.util import find_spec

    from harness.records.errors import EnvironmentProblem

    missing = [name for name in ("streamlit", "plotly") if find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"the board needs {' and '.join(missing)}: pip install 'visual-token-pruning[board]', "
            "or in a checkout pip install -c constraints.txt -e '.[board]'"
        )


def _command(places: list[str], host: str, port: int) -> list[str]:
    """How Streamlit is started. places: the store, and the folder of submissions if there is one.

    The script is found by its place: nothing of the harness imports the board.
    """
    import sys

    script = Path(__file__).resolve().parents[2] / "leaderboard" / "app.py"
    settings = {**_CALM, "server.address": host, "server.port": str(port)}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "streamlit", "run", str(script), *flags, "--", *places]


def _free_port(host: str) -> int:
    import socket

    from harness.records.errors import UsageError

    try:
        with socket.create_server((host, 0)) as listening:
            return int(listening.getsockname()[1])
    except OSError as problem:
        raise UsageError(f"cannot listen on {host}: {problem}; give another --host") from problem


def _wait(server: object, host: str, port: int) -> None:
    """Until the server answers. Raises EnvironmentProblem when it ends, or takes longer than `START_S`."""
    import socket
    import time

    from harness.records.errors import EnvironmentProblem

    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            with socket.create_connection((host, port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise EnvironmentProblem(f"no board on {host}:{port}; another --port may be free")
