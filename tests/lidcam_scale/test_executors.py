"""One contract for all executors; those of Ray and Spark skip where these are not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scale_tasks as tasks
from scale_tables import is_alive

from lidcam_rt.errors import InputError, MissingExtraError, OutputError
from lidcam_scale.choose import executor_of
from lidcam_scale.executors import Died, InProcess
from lidcam_scale.processes import Processes


@pytest.mark.parametrize("executor", [InProcess(), Processes(1), Processes(3)], ids=["here", "one", "three"])
def test_results_and_errors(executor):
    assert sorted(executor.run(tasks.double, list(range(7)))) == [(i, 2 * i) for i in range(7)]
    assert list(executor.run(tasks.double, [])) == []
    with pytest.raises(OutputError, match="No space left"):
        list(executor.run(tasks.full, ["part"]))
    with pytest.raises(MissingExtraError, match="lidcam-rt\\[crf\\]"):
        list(executor.run(tasks.lacks, ["part"]))
    with pytest.raises((ZeroDivisionError, RuntimeError), match="planted"):
        list(executor.run(tasks.fails, [0]))


def test_a_process_that_dies_is_started_again(tmp_path):
    todo = [(number, str(tmp_path)) for number in (1, -1, 2, -2, 3)]
    results = dict(Processes(2).run(tasks.die_at, todo))
    assert results == {0: 1, 1: "second time", 2: 2, 3: Died(), 4: 3}


def test_every_process_has_tasks_in_turn_and_ends_with_the_run():
    pids = {pid for _, pid in Processes(2).run(tasks.process, list(range(20)))}
    assert len(pids) <= 2 and os.getpid() not in pids
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.hostile
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_processes_end_with_their_parent_in_the_middle_of_a_task(tmp_path, number):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import scale_tasks; from lidcam_scale.processes import Processes\n"
        "list(Processes(2).run(scale_tasks.wait_for_ever, [sys.argv[1]] * 2))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)], stderr=subprocess.DEVNULL
    )
    while len(started := [int(path.name) for path in tmp_path.iterdir()]) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(number)
    parent.wait()
    while any(is_alive(pid) for pid in started):
        time.sleep(0.05)


def test_what_is_asked_for():
    assert isinstance(executor_of(processes=0), InProcess)
    chosen = executor_of(processes=3)
    assert isinstance(chosen, Processes) and chosen.count == 3
    with pytest.raises(InputError, match="--processes and --ray: choose one"):
        executor_of(processes=1, ray="local")
    with pytest.raises(InputError, match="for --ray"):
        executor_of(processes=1, num_gpus=0.5)
    for count in (-1, 1025, 100_000):  # a slip that would take the machine down
        with pytest.raises(InputError, match="processes must be 1 to 1024"):
            executor_of(processes=count)


@pytest.mark.parametrize(("option", "module"), [("ray", "ray"), ("spark", "pyspark")])
def test_an_extra_that_is_missing(monkeypatch, option, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'lidcam-rt\[{option}\]'"):
        list(executor_of(**{option: "local"}).run(tasks.double, [1]))
