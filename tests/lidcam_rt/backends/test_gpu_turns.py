"""Calls share the GPUs of a process, a capture has them alone."""

from __future__ import annotations

import os
import threading

import pytest

from lidcam_rt.backends.gpu_turns import GPU_TURNS, Turns


class Watched(Turns):
    """Tells that a thread has come to wait: `waits` holds it, then."""

    def reset(self) -> None:
        super().reset()
        self.waits = threading.Semaphore(0)
        wait = self._changed.wait

        def waiting(timeout=None):
            self.waits.release()
            return wait(timeout)

        self._changed.wait = waiting  # type: ignore[method-assign]


def start(function) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_calls_share():
    turns, meet = Turns(), threading.Barrier(3)

    def call():
        with turns.shared():
            meet.wait(300)

    threads = [start(call) for _ in range(3)]
    for thread in threads:
        thread.join()
    assert not meet.broken


def test_one_that_is_alone_has_nobody_beside_it():
    turns, inside, seen = Turns(), [], []

    def call(kind):
        for _ in range(50):
            with getattr(turns, kind)():
                inside.append(kind)
                seen.append(tuple(inside))
                inside.remove(kind)

    threads = [start(lambda kind=kind: call(kind)) for kind in ("shared", "alone", "shared", "alone")]
    for thread in threads:
        thread.join()
    assert len(seen) == 200 and all("alone" not in beside or beside == ("alone",) for beside in seen)


def test_one_that_wants_to_be_alone_comes_before_later_calls():
    turns, order, go = Watched(), [], threading.Event()

    def call(kind, name):
        with getattr(turns, kind)():
            order.append(name)

    def first():
        with turns.shared():
            order.append("first")
            turns.waits.release()
            go.wait()

    threads = [start(first)]
    turns.waits.acquire()
    threads.append(start(lambda: call("alone", "alone")))
    turns.waits.acquire()
    threads.append(start(lambda: call("shared", "later")))
    turns.waits.acquire()
    go.set()
    for thread in threads:
        thread.join()
    assert order == ["first", "alone", "later"]


@pytest.mark.parametrize("kind", ["shared", "alone"])
def test_an_error_gives_it_back(kind):
    turns = Turns()
    with pytest.raises(ZeroDivisionError), getattr(turns, kind)():
        raise ZeroDivisionError
    with turns.alone():
        pass


@pytest.mark.parametrize("kind", ["shared", "alone"])
def test_an_interrupt_while_it_waits_leaves_nothing_behind(kind, monkeypatch):
    turns, go = Watched(), threading.Event()

    def hold():
        with turns.alone():
            turns.waits.release()
            go.wait()

    holder = start(hold)
    turns.waits.acquire()

    def interrupted(ready):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(turns._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt), getattr(turns, kind)():
            pass
    go.set()
    holder.join()
    with turns.shared():
        pass
    with turns.alone():
        pass


def test_a_thread_that_holds_it_may_take_it_again():
    turns = Watched()
    with turns.alone(), turns.shared(), turns.alone(), turns.shared():
        pass
    with turns.shared():
        waiting = start(lambda: turns.alone().__enter__())
        turns.waits.acquire()
        with turns.shared():  # would wait for ever behind the other
            pass
        with pytest.raises(RuntimeError, match="cannot have them alone"), turns.alone():
            pass
    waiting.join()


def test_a_helper_of_its_holder_does_not_wait():
    turns = Turns()

    def help():
        with turns.covered(), turns.shared():
            pass

    with turns.alone():
        start(help).join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_waits_for_nobody():
    go, there = threading.Event(), threading.Event()

    def hold():
        with GPU_TURNS.alone():
            there.set()
            go.wait()

    holder = start(hold)
    there.wait()
    child = os.fork()
    if not child:
        with GPU_TURNS.shared(), GPU_TURNS.shared():
            os._exit(7)
    go.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
