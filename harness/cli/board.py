"""`harness board`: the leaderboard on the local store, in a browser."""

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
    results: options.Results = None,
) -> None:
    """Show the leaderboard of a store and of results/ in a browser."""
    import signal
    import subprocess
    import sys

    check_extra("the board")
    given = places(store, results)
    path = given[0]
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


def places(store: Path | None, results: Path | None) -> list[str]:
    """Paths that the board reads: the store, and the folder of submissions if there is one."""
    from harness.store.database import default_store_path

    folder = options.submitted(store, results)
    return [str(one.absolute()) for one in (store or default_store_path(), folder) if one is not None]


def check_extra(what: str) -> None:
    """Raises EnvironmentProblem without the packages that the board needs. what: names its user in words."""
    from importlib.util import find_spec

    from harness.records.errors import EnvironmentProblem

    missing = [name for name in ("streamlit", "plotly") if find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"{what} needs {' and '.join(missing)}: pip install 'visual-token-pruning[board]', "
            "or in a checkout pip install -c constraints.txt -e '.[board]'"
        )


def _command(given: list[str], host: str, port: int) -> list[str]:
    """Command line of the Streamlit server. given: from `places`.

    The script is found by its place: nothing of the harness imports the board.
    """
    import sys

    script = Path(__file__).resolve().parents[2] / "leaderboard" / "app.py"
    settings = {**_CALM, "server.address": host, "server.port": str(port)}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "streamlit", "run", str(script), *flags, "--", *given]


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
