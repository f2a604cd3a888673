"""One timing session in a fresh process, for the intervals that must cover how processes differ."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.connection import Connection

from harness.measure.latency import Protocol
from harness.records.errors import HarnessError, Interrupted
from harness.records.progress import Stop
from harness.request.opening import open_bench
from harness.request.request import Request
from harness.timing import Row, time_session

POLL_SECONDS = 0.2


def time_in_fresh_process(request: Request, protocol: Protocol, stop: Stop) -> list[Row]:
    """The rows of one session. Raises Interrupted when told to stop, HarnessError when the process fails."""
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_session, args=(theirs, request, protocol), daemon=True)
    process.start()
    theirs.close()
    try:
        while not ours.poll(POLL_SECONDS):
            if stop():
                raise Interrupted("stopped while timing; every answer is kept")
        return ours.recv()
    except EOFError:
        process.join()
        raise HarnessError(
            f"a timing session ended with code {process.exitcode} and no result; run the same command again"
        ) from None
    finally:
        process.terminate()
        process.join()


def _session(connection: Connection, request: Request, protocol: Protocol) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    bench = open_bench(request)
    connection.send(time_session(bench.subject(bench.cell(request)), protocol, lambda: False))
