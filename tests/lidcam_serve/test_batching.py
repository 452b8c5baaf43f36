"""The batcher on a pipeline that the test holds and lets go."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from types import SimpleNamespace

import numpy as np
import pytest

from lidcam_serve.batching import Batcher, Job
from lidcam_serve.errors import Busy, DeadlinePassed


class Held:
    """A pipeline whose runs begin and end when the test says so."""

    def __init__(self) -> None:
        self.began, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def run(self, prepared, wanted, outputs, stop):
        self.batches.append([int(entry.array[0]) for entry in prepared])
        self.began.release()
        assert self.go.acquire(timeout=300)
        if any(entry.array[0] < 0 for entry in prepared):
            raise ValueError("this row breaks the batch")
        return {"out": np.array([entry.array[0] * 10 for entry in prepared])}


class Counts:
    def __init__(self) -> None:
        self.drops: list[str] = []

    def queued(self, rows): ...

    def batch(self, rows): ...

    def dropped(self, stage):
        self.drops.append(stage)


@pytest.fixture
def held():
    return Held()


@pytest.fixture
def make(held):
    made = []
    pool = ThreadPoolExecutor(2)

    def build(**options):
        observer = Counts()
        settings = {"max_batch": 1, "max_delay": 0.0, "queue": 8, **options}
        batcher = Batcher(held, 1, pool, observer=observer, **settings)
        made.append(batcher)
        return batcher, observer

    yield build
    held.go.release(1000)
    for batcher in made:
        batcher.close()
    pool.shutdown()


def job(*values, seconds=600.0, prepare=None, shape=1):
    rows = [SimpleNamespace(array=np.full(shape, value)) for value in values]

    def finish(prepared, outputs, row):
        return [int(v) for v in outputs["out"][row : row + len(prepared)]]

    return Job(prepare or (lambda: rows), [(-1,)] * len(values), ("out",), finish, time.monotonic() + seconds)


def until(state):
    """Wait for a state that another thread is about to reach."""
    end = time.monotonic() + 300
    while not state():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_requests_that_wait_together_are_run_together_and_get_their_own_rows(make, held):
    batcher, _ = make(max_batch=4, max_delay=0.0)
    first = batcher.submit(job(1))
    assert held.began.acquire(timeout=300)
    entered = threading.Semaphore(0)

    def prepared(*values):
        rows = job(*values).prepare()
        entered.release()
        return rows

    others = [batcher.submit(job(*v, prepare=lambda v=v: prepared(*v))) for v in ((2,), (3, 4), (5,))]
    for _ in others:
        assert entered.acquire(timeout=300)
    until(lambda: not batcher._preparing)
    held.go.release(10)
    assert [future.result(300) for future in (first, *others)] == [[10], [20], [30, 40], [50]]
    assert held.batches[0] == [1] and sorted(held.batches[1]) == [2, 3, 4, 5]


def test_rows_of_different_sizes_are_not_run_together(make, held):
    batcher, _ = make(max_batch=4, max_delay=0.0)
    held.go.release(10)
    futures = [batcher.submit(job(1)), batcher.submit(job(2, shape=2)), batcher.submit(job(3))]
    assert [future.result(300) for future in futures] == [[10], [20], [30]]
    assert not any(2 in batch and len(batch) > 1 for batch in held.batches)


def test_a_full_queue_refuses_and_says_when_to_come_again(make, held):
    batcher, _ = make(queue=2)
    running = batcher.submit(job(1))
    assert held.began.acquire(timeout=300)
    waiting = [batcher.submit(job(2)), batcher.submit(job(3))]
    with pytest.raises(Busy) as error:
        batcher.submit(job(4))
    assert error.value.status == 429 and error.value.retry_after >= 1
    held.go.release(10)
    wait([running, *waiting], 300)
    assert batcher.submit(job(5)).result(300) == [50]  # there is room again


def test_what_nobody_waits_for_never_reaches_the_network(make, held):
    batcher, seen = make()
    running = batcher.submit(job(1))
    assert held.began.acquire(timeout=300)
    left, late = job(2), job(3, seconds=0.0)
    futures = [batcher.submit(left), batcher.submit(late), batcher.submit(job(4))]
    left.abandon()
    held.go.release(10)
    assert running.result(300) == [10] and futures[2].result(300) == [40]
    with pytest.raises(CancelledError):
        futures[0].result(300)
    with pytest.raises(DeadlinePassed):
        futures[1].result(300)
    until(lambda: batcher.waiting == 0 and len(seen.drops) == 2)
    assert held.batches == [[1], [4]]


def test_a_row_that_breaks_a_batch_breaks_no_other_request(make, held):
    batcher, _ = make(max_batch=3, max_delay=30.0)
    held.go.release(10)
    futures = [batcher.submit(job(value)) for value in (1, -2, 3)]
    wait(futures, 300)
    assert futures[0].result() == [10] and futures[2].result() == [30]
    with pytest.raises(ValueError, match="breaks"):
        futures[1].result()
    assert len(held.batches) == 4 and len(held.batches[0]) == 3


def test_a_picture_that_cannot_be_decoded_fails_alone_and_leaves_the_queue(make, held):
    batcher, _ = make(queue=1)

    def broken():
        raise ValueError("no picture")

    for _ in range(5):
        with pytest.raises(ValueError, match="no picture"):
            batcher.submit(job(1, prepare=broken)).result(300)
    held.go.release()
    assert batcher.submit(job(2)).result(300) == [20]


def test_closing_finishes_what_was_accepted(make, held):
    batcher, _ = make()
    futures = [batcher.submit(job(value)) for value in range(1, 6)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    held.go.release(10)
    assert [future.result(300) for future in futures] == [[10], [20], [30], [40], [50]]
    closing.join(300)
    assert not closing.is_alive()
