"""`lidcam scale` under kill -9: of the command, of its processes, half-way, and on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scale_tables import is_alive, plain_run, rows_of

from lidcam_scale.listing import list_pictures

#: The command, which stops itself (SIGSTOP) once it knows of so many parts; 0: never.
_STOPS = """
import os, signal, sys
from lidcam_scale.run import _Work

add, at = _Work._add, int(sys.argv.pop(1))

def stopping(self, *facts):
    add(self, *facts)
    if len(self._facts) == at:
        os.kill(os.getpid(), signal.SIGSTOP)

_Work._add = stopping
from lidcam_cli.main import main
main()
"""


def start(model, photos, out, *options, stop_at=0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _STOPS, str(stop_at), "scale", str(model), str(photos), "-o", str(out), "--quiet"]
    return subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)


def wait_until_it_stops(process: subprocess.Popen[bytes]) -> None:
    state = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert state is not None and state.si_code == os.CLD_STOPPED, "it was over before it stopped"


def finished(out: Path) -> int:
    return len(list(out.glob("part-*.parquet"))) if out.exists() else 0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until_parts(process: subprocess.Popen[bytes], out: Path, count: int) -> None:
    while finished(out) < count:
        assert process.poll() is None, "it was over before it could be killed"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.hostile
def test_killed_half_way_twice_and_resumed(model, many, tmp_path):
    out, options = tmp_path / "out", ("--processes", "2", "--shard-size", "8")
    for share in (5, 20):
        command = start(model, many, out, *options, stop_at=share)
        wait_until_it_stops(command)
        workers = children(command.pid)
        command.kill()
        command.wait()
        while any(is_alive(pid) for pid in workers):
            time.sleep(0.05)
        assert not (out / "_SUCCESS").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert start(model, many, out, *options).wait() == 8  # some pictures cannot be read
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept, "a part was made twice"
    assert rows_of(out) == plain_run(model, list_pictures([str(many)]))
    hidden = {path.name for path in out.iterdir() if path.name.startswith(".")}
    assert hidden == {".lidcam.lock"} and (out / "_SUCCESS").exists()


@pytest.mark.slow
@pytest.mark.hostile
def test_killed_workers_are_replaced(model, many, tmp_path):
    out = tmp_path / "out"
    command = start(model, many, out, "--processes", "2", "--shard-size", "8", stop_at=4)
    wait_until_it_stops(command)
    victim, *_ = children(command.pid)
    os.kill(victim, signal.SIGKILL)
    command.send_signal(signal.SIGCONT)
    assert command.wait() == 8
    assert rows_of(out) == plain_run(model, list_pictures([str(many)]))


@pytest.mark.slow
def test_two_commands_at_once_in_one_folder(model, many, tmp_path):
    out = tmp_path / "out"
    first = start(model, many, out, "--processes", "1", "--shard-size", "8", stop_at=1)
    wait_until_it_stops(first)
    try:
        assert start(model, many, out, "--processes", "1", "--shard-size", "8").wait() == 6
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait() == 8
    assert len(rows_of(out)) == 501
