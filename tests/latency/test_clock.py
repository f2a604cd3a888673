"""The stage clock, with time that the tests move by hand."""

from __future__ import annotations

import pytest
import torch

from harness.latency.clock import (
    DeviceEventBackend,
    PerfCounterBackend,
    StageClock,
    default_backend,
    is_host_bound,
    residual_ms,
)
from harness.models.clock import Untimed


class Hand:
    """A clock hand in nanoseconds that only the test moves."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns

    def pass_ms(self, ms: float) -> None:
        self.ns += round(ms * 1e6)


class Stream:
    """A device that runs behind the host: recorded events get their time when the stream is synchronised."""

    def __init__(self) -> None:
        self.queue: list[FakeEvent | float] = []
        self.device_ms = 0.0
        self.calls: list[str] = []

    def launch(self, ms: float) -> None:
        self.queue.append(ms)

    def event(self) -> FakeEvent:
        return FakeEvent(self)

    def synchronise(self) -> None:
        self.calls.append("synchronise")
        for entry in self.queue:
            if isinstance(entry, FakeEvent):
                entry.at_ms = self.device_ms
            else:
                self.device_ms += entry
        self.queue.clear()


class FakeEvent:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.at_ms: float | None = None

    def record(self) -> None:
        self.stream.calls.append("record")
        self.stream.queue.append(self)

    def elapsed_time(self, later: FakeEvent) -> float:
        if self.at_ms is None or later.at_ms is None:
            raise RuntimeError("an event was read before the device reached it")
        return later.at_ms - self.at_ms


def clock_and_hand() -> tuple[StageClock, Hand]:
    hand = Hand()
    return StageClock(PerfCounterBackend(hand), wall_now_ns=hand), hand


def test_stages_and_residual_by_hand():
    clock, hand = clock_and_hand()
    hand.pass_ms(100)  # before the repetition: nobody's
    clock.start()
    hand.pass_ms(1)
    with clock.stage("vit"):
        hand.pass_ms(20)
    with clock.stage("llm_prefill"):
        hand.pass_ms(30)
    hand.pass_ms(2)
    clock.stop()
    hand.pass_ms(100)
    times = clock.times_ms()
    assert times == {"vit": 20, "llm_prefill": 30, "total": 53}
    assert residual_ms(times) == 3
    assert clock.wall_ms() == 53


def test_a_nested_stage_pauses_the_outer_one():
    clock, hand = clock_and_hand()
    clock.start()
    with clock.stage("vit"):
        hand.pass_ms(5)
        with clock.stage("select"):
            hand.pass_ms(7)
            with clock.stage("projector"):
                hand.pass_ms(1)
        hand.pass_ms(6)
    clock.stop()
    assert clock.times_ms() == {"vit": 11, "select": 7, "projector": 1, "total": 19}


def test_a_stage_entered_twice_adds_up_and_one_never_entered_is_absent():
    clock, hand = clock_and_hand()
    clock.start()
    for ms in (3, 4):
        with clock.stage("select"):
            hand.pass_ms(ms)
    clock.stop()
    assert clock.times_ms() == {"select": 7, "total": 7}


def test_a_new_start_forgets_the_repetition_before():
    clock, hand = clock_and_hand()
    for ms in (9, 2):
        clock.start()
        with clock.stage("vit"):
            hand.pass_ms(ms)
        clock.stop()
    assert clock.times_ms() == {"vit": 2, "total": 2}


def test_an_error_inside_a_stage_closes_it():
    clock, hand = clock_and_hand()
    clock.start()
    with pytest.raises(ZeroDivisionError), clock.stage("vit"), clock.stage("select"):
        hand.pass_ms(4)
        raise ZeroDivisionError
    hand.pass_ms(1)
    clock.stop()
    assert clock.times_ms() == {"vit": 0, "select": 4, "total": 5}


def test_our_own_misuse_is_an_assertion():
    clock, _ = clock_and_hand()
    with pytest.raises(AssertionError), clock.stage("vit"):
        pass
    clock.start()
    with pytest.raises(AssertionError):
        clock.times_ms()
    with pytest.raises(AssertionError), clock.stage("total"):
        pass


def test_device_events_are_read_after_one_synchronise_and_none_happens_inside():
    stream, hand = Stream(), Hand()
    clock = StageClock(DeviceEventBackend(stream.event, stream.synchronise), wall_now_ns=hand)
    stream.launch(1000)  # work left over from before must not be counted
    clock.start()
    with clock.stage("vit"):
        stream.launch(5)
        with clock.stage("select"):
            stream.launch(2)
        stream.launch(6)
    stream.launch(0.5)
    hand.pass_ms(20)
    clock.stop()
    assert clock.times_ms() == {"vit": 11, "select": 2, "total": 13.5}
    assert clock.wall_ms() == 20
    assert clock.kind == "device_event"
    assert stream.calls[0] == stream.calls[-1] == "synchronise"
    assert stream.calls.count("synchronise") == 2


def test_an_event_read_too_early_is_an_error_not_a_number():
    stream = Stream()
    backend = DeviceEventBackend(stream.event, stream.synchronise)
    with pytest.raises(RuntimeError, match="before the device"):
        backend.elapsed_ms(backend.mark(), backend.mark())


def test_the_host_is_the_limit_when_its_wall_exceeds_the_events_by_more_than_5_percent():
    assert not is_host_bound(wall_ms=105, total_ms=100)
    assert is_host_bound(wall_ms=106, total_ms=100)


def test_a_model_on_the_cpu_is_timed_by_the_host_clock():
    assert default_backend("cpu").kind == "perf_counter_ns"


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_without_an_accelerator_events_are_refused_with_what_to_use_instead():
    assert default_backend().kind == "perf_counter_ns"
    with pytest.raises(RuntimeError, match="PerfCounterBackend"):
        DeviceEventBackend()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_device_events_time_a_real_stream():
    device = torch.accelerator.current_accelerator()
    clock = StageClock(default_backend())
    x = torch.ones(512, 512, device=device)
    for _ in range(2):
        clock.start()
        with clock.stage("vit"):
            for _ in range(50):
                x = x @ x / 512
        clock.stop()
    times = clock.times_ms()
    assert 0 < times["vit"] <= times["total"] <= clock.wall_ms() * 1.01


def test_the_null_clock_does_nothing():
    clock = Untimed()
    with clock.stage("vit"), clock.stage("select"):
        pass
