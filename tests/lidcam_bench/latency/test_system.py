"""The systems under test, without LoadGen: who works on what, and what is recorded."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from lidcam_bench.latency.loadgen import Query
from lidcam_bench.latency.system import Direct, Streamed, Workers, stage_arrays
from lidcam_bench.latency.timer import StageTimer

from lidcam_rt.errors import ImageError


class Answers:
    """Collects what is answered; `wait(n)` returns when there are n."""

    def __init__(self):
        self.ids, self.changed = [], threading.Condition()

    def __call__(self, ids):
        with self.changed:
            self.ids += ids
            self.changed.notify_all()

    def wait(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.ids) >= count, timeout=300)


def test_direct_answers_inside_issue():
    timer, done, answers = StageTimer(), [], Answers()

    def task(pictures):
        assert not answers.ids
        with timer.stage("network"):
            done.append(tuple(pictures))

    system = Direct(task, timer)
    system.issue(Query(0, (70, 71), (3, 1)), answers)
    system.flush()
    assert done == [(3, 1)] and answers.ids == [70, 71]
    assert [(r.number, r.waited_ns, list(r.timing.stages_ns)) for r in system.records] == [(0, 0, ["network"])]


def test_workers_take_what_waits_up_to_the_batch():
    """One thread, held up in its first call while seven queries arrive."""
    inside, go, calls, answers = threading.Event(), threading.Event(), [], Answers()
    time = iter(range(10_000))

    def task(pictures):
        calls.append(list(pictures))
        inside.set()
        assert go.wait(300)

    system = Workers(task, StageTimer(), threads=1, batch=4, clock=lambda: next(time))
    system.issue(Query(0, (10,), (0,)), answers)
    assert inside.wait(300)
    for n in range(1, 8):
        system.issue(Query(n, (10 + n,), (n,)), answers)
    go.set()
    answers.wait(8)
    system.close()
    assert calls == [[0], [1, 2, 3, 4], [5, 6, 7]]
    assert sorted(answers.ids) == list(range(10, 18))
    shared = {record.number: record for record in system.records}
    assert len(shared) == 8 and shared[1].timing is shared[4].timing is not shared[5].timing
    assert all(record.waited_ns > 0 for record in system.records)


def test_workers_number_the_pictures_of_one_large_query():
    answers = Answers()
    system = Workers(lambda pictures: None, StageTimer(), threads=2, batch=2)
    system.issue(Query(0, tuple(range(50, 59)), tuple(range(9))), answers)
    answers.wait(9)
    system.close()
    assert sorted(record.number for record in system.records) == list(range(9))


def test_a_failure_answers_everything_and_comes_out():
    answers = Answers()

    def task(pictures):
        raise ImageError("x.jpg: damaged")

    system = Workers(task, StageTimer(), threads=1)
    system.issue(Query(0, (1,), (0,)), answers)
    answers.wait(1)
    with pytest.raises(ImageError):
        while True:  # told at the latest when the thread has stored it
            system.issue(Query(1, (2,), (0,)), answers)
    with pytest.raises(ImageError, match="damaged"):
        system.close()


def test_closing_ends_a_batch_that_was_being_filled():
    system = Workers(lambda pictures: None, StageTimer(), threads=3, batch=8)
    system.close()
    assert not any(thread.is_alive() for thread in system._threads)


def test_streamed_answers_in_order_as_results_come():
    answers, seen = Answers(), []

    def stream(pictures):
        for picture in pictures:
            seen.append(list(answers.ids))
            yield SimpleNamespace(picture=picture)

    Streamed(stream).issue(Query(0, (5, 6, 7), (0, 1, 2)), answers)
    assert answers.ids == [5, 6, 7] and seen == [[], [5], [5, 6]]


def test_streamed_raises_a_failure():
    failure = SimpleNamespace(error=ImageError("x.jpg: damaged"))
    with pytest.raises(ImageError):
        Streamed(lambda pictures: [failure]).issue(Query(0, (5,), (0,)), Answers())


def test_arrays_have_a_row_per_query():
    now = iter(range(0, 10_000, 10))
    timer, answers = StageTimer(clock=lambda: next(now)), Answers()

    def task(pictures):
        with timer.stage("decode"):
            pass
        if pictures[0] == 1:
            with timer.stage("crf"):
                pass

    system = Direct(task, timer)
    for number in range(3):
        system.issue(Query(number, (number,), (number,)), answers)
    arrays = stage_arrays(system.records, 4)
    assert {name: values.tolist() for name, values in arrays.items()} == {
        "whole": [30, 50, 30, -1], "waited": [0, 0, 0, -1], "stage:decode": [10, 10, 10, -1],
        "stage:crf": [-1, 10, -1, -1],
    }  # fmt: skip
    assert arrays["whole"].dtype == np.int64
