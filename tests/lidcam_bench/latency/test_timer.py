"""The stage timer, on a clock and a device that move only when told to. Nothing here is timed."""

from __future__ import annotations

import threading

import pytest
from lidcam_bench.latency import timer as timer_module
from lidcam_bench.latency.timer import StageTimer, _Stage

from lidcam_rt.backends.base import Stop
from lidcam_rt.watch import Watch


class World:
    """A host clock and a device with one queue of work; a log of what was asked in which order."""

    def __init__(self) -> None:
        self.time = 0
        self.device_free_at = 0
        self.log: list[str] = []

    def clock(self) -> int:
        self.log.append("clock")
        return self.time

    def host_work(self, duration: int) -> None:
        self.log.append("work")
        self.time += duration

    def launch(self, duration: int) -> None:
        """Asynchronous work for the device: the host's time stands still."""
        self.log.append("launch")
        self.device_free_at = max(self.device_free_at, self.time) + duration

    def synchronize(self) -> None:
        self.log.append("synchronize")
        self.time = max(self.time, self.device_free_at)

    def record(self, stream: int) -> int:
        self.log.append(f"event {stream}")
        return max(self.device_free_at, self.time)

    def elapsed_ns(self, start: int, end: int) -> int:
        assert self.time >= end, "the event was read before it was reached"
        self.log.append("elapsed")
        return end - start


def check_order(make_timer) -> None:
    """What every correct timer does: an earlier step's work is not this step's, and its own is counted whole."""
    world = World()
    timer = make_timer(world)
    with timer.query() as timing:
        with timer.stage("first"):
            world.launch(7)
        world.launch(100)  # between the steps: nobody's
        with timer.stage("second"):
            world.host_work(3)
            world.launch(10)
        with timer.stage("third"):
            world.host_work(4)
    assert timing.stages_ns == {"first": 7, "second": 13, "third": 4}
    assert timing.whole_ns == 124


def timer_of(world: World, **options) -> StageTimer:
    return StageTimer(clock=world.clock, device=world, **options)


def test_order_on_a_device():
    check_order(timer_of)


def test_every_reading_of_the_clock_follows_a_synchronisation():
    world = World()
    timer = timer_of(world)
    with timer.query(), timer.stage("a"):
        world.host_work(1)
    steps = ["synchronize", "clock"]
    assert world.log == [*steps, *steps, "work", *steps, *steps]


@pytest.mark.parametrize("planted", ["after the clock of the begin", "before the clock of the end", "no wait"])
def test_a_timer_with_a_sleep_in_the_wrong_place_is_caught(planted, monkeypatch):
    """The check itself is checked: three wrong timers fail it."""

    class Wrong(_Stage):
        def __enter__(self):
            super().__enter__()
            if planted == "after the clock of the begin":
                self._timer._device.time += 5

        def __exit__(self, *error):
            if planted == "before the clock of the end":
                self._timer._device.time += 5
            super().__exit__(*error)

    monkeypatch.setattr(timer_module, "_Stage", Wrong)
    if planted == "no wait":
        monkeypatch.setattr(StageTimer, "_now", lambda self: self._clock())
    with pytest.raises(AssertionError):
        check_order(timer_of)


def test_work_on_a_stream_is_timed_by_events_without_waiting():
    world = World()
    timer = timer_of(world)
    with timer.query() as timing, timer.stage("network"):
        with timer.stage("upload", 4):
            world.launch(2)
        with timer.stage("graph", 4):
            world.launch(30)
        world.log.append("returned")
    inside = world.log[world.log.index("event 4") : world.log.index("returned")]
    assert inside == ["event 4", "launch", "event 4"] * 2  # no clock, no wait
    assert timing.stages_ns == {"network": 32, "network/upload": 2, "network/graph": 30}
    assert world.log[-2:] == ["elapsed", "elapsed"]


def test_several_queries_at_once_do_not_wait_for_each_other_s_work():
    world = World()
    timer = timer_of(world, exclusive=False)
    with timer.query() as timing:
        with timer.stage("host"):
            world.host_work(3)
        with timer.stage("graph", 1):
            world.launch(30)
        assert "synchronize" not in world.log
    assert timing.stages_ns == {"host": 3, "graph": 30}
    assert world.log.index("synchronize") < world.log.index("elapsed")


def test_without_a_device_the_clock_alone_is_read():
    world = World()
    timer = StageTimer(clock=world.clock)
    with timer.query() as timing, timer.stage("graph", 4):
        world.host_work(8)
    assert timing.stages_ns == {"graph": 8} and timing.whole_ns == 8
    assert "synchronize" not in world.log and "event 4" not in world.log


def test_a_repeated_step_is_summed():
    world = World()
    timer = StageTimer(clock=world.clock)
    with timer.query() as timing:
        for duration in (1, 2, 4):
            with timer.stage("boxes"):
                world.host_work(duration)
    assert timing.stages_ns == {"boxes": 7}


def test_a_step_that_fails_is_not_recorded():
    world = World()
    timer = StageTimer(clock=world.clock)
    with pytest.raises(ValueError, match="damaged"), timer.query() as timing:
        with timer.stage("decode"):
            world.host_work(1)
        with timer.stage("network"):
            raise ValueError("damaged")
    assert timing.stages_ns == {"decode": 1} and timing.whole_ns == 0
    with timer.query() as timing, timer.stage("decode"):  # and the next query is as any other
        world.host_work(2)
    assert timing.stages_ns == {"decode": 2}


def test_threads_keep_their_queries_apart():
    timers, both = StageTimer(), threading.Barrier(2, timeout=300)
    found = {}

    def run(name):
        with timers.query() as timing, timers.stage(name):
            both.wait()  # both are inside their stage
        found[name] = timing

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert set(found["a"].stages_ns) == {"a"} and set(found["b"].stages_ns) == {"b"}


def test_a_step_in_another_thread_with_the_caller_s_context_belongs_to_its_query():
    """So does the runtime call an engine from the main thread."""
    world = World()
    timer = StageTimer(clock=world.clock)

    def call():
        with timer.stage("graph"):
            world.host_work(5)

    with timer.query() as timing, timer.stage("network"):
        Watch().call(call, Stop())
        world.host_work(1)
    assert timing.stages_ns == {"network/graph": 5, "network": 6} and not timer.loose_ns


def test_two_timers_at_once_keep_apart():
    world = World()
    one, two = StageTimer(clock=world.clock), StageTimer(clock=world.clock)
    with one.query() as outer, two.query() as inner, two.stage("a"):
        world.host_work(2)
    assert outer.stages_ns == {} and inner.stages_ns == {"a": 2} and outer.whole_ns == 2


def test_steps_outside_a_query_are_kept_apart():
    world = World()
    timer = StageTimer(clock=world.clock)
    for duration in (1, 2):
        with timer.stage("decode"):
            world.host_work(duration)
    assert dict(timer.loose_ns) == {"decode": [1, 2]}


def test_a_query_inside_a_query_is_refused():
    timer = StageTimer()
    with timer.query(), pytest.raises(RuntimeError, match="inside a query"), timer.query():
        pass
