from __future__ import annotations

import os
import signal

import pytest

from harness.cli.interrupts import graceful_stop
from harness.records.errors import Interrupted


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_ctrl_c_asks_and_the_second_insists():
    said = []
    before = signal.getsignal(signal.SIGINT)
    with graceful_stop(lambda: said.append(1)) as stop:
        assert not stop()
        press_ctrl_c()
        assert stop() and said == [1]
        with pytest.raises(Interrupted, match="every finished sample is kept"):
            press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_handler_is_put_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), graceful_stop():
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is before
