"""However a command ends, it says so in a line and with a status: no traceback, no hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import artifacts
import pytest
from PIL import Image

pytestmark = pytest.mark.slow  # not in make quick

CODE = "from lidcam_cli.main import main; main()"
LIDCAM = f'"{sys.executable}" -c "{CODE}"'


def shell(script: str, folder: Path) -> subprocess.CompletedProcess:
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout and "Exception ignored" not in done.stderr
    return done


@pytest.fixture
def folder(model, tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").symlink_to(model)
    for colour in artifacts.CLASSES:
        Image.fromarray(artifacts.picture(colour)).save(tmp_path / f"{colour}.png")
    return tmp_path


VERBS = {
    "jsonl": "localize model.onnx '*.png' -o out --jsonl",
    "table": "localize model.onnx '*.png' -o out",
    "inspect": "inspect model.onnx",
    "inspect json": "inspect model.onnx --json",
    "doctor": "doctor",
    "help": "--help",
    "help of a verb": "localize --help",
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_pipe_that_nobody_reads(folder, verb):
    """`true` reads nothing: it is gone, by the fifo's state, before the command writes."""
    script = f"mkfifo gone; true < gone & exec 3> gone; wait; {LIDCAM} {VERBS[verb]} >&3; exit $?"
    done = shell(script, folder)
    assert done.returncode == 141 and not done.stderr


@pytest.mark.parametrize("verb", ["jsonl", "table", "inspect json", "doctor"])
def test_head_reads_a_line(folder, verb):
    done = shell(f"set -o pipefail; {LIDCAM} {VERBS[verb]} | head -1", folder)
    assert len(done.stdout.splitlines()) == 1 and not done.stderr
    assert done.returncode in (0, 1, 141)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("closed", "status"), [("<&-", 0), (">&-", 6), ("2>&-", 0), ("<&- >&- 2>&-", 6)])
def test_closed_standard_streams(folder, verb, closed, status):
    done = shell(f"{LIDCAM} {VERBS[verb]} {closed}", folder)
    assert done.returncode in ((status, 1) if verb == "doctor" else (status,))
    if closed == ">&-":
        assert "standard output: Bad file descriptor" in done.stderr and len(done.stderr.splitlines()) == 1
    if "localize model" in VERBS[verb]:
        results = json.loads((folder / "out" / "results.json").read_text())["results"]
        assert len(results) == (4 if status == 0 or verb == "table" else 1)  # the line of the first cannot be printed


def test_a_list_from_a_closed_standard_input(folder):
    done = shell(f"{LIDCAM} localize model.onnx - -o out <&-", folder)
    assert done.returncode == 2 and "standard input is closed" in done.stderr


INTERRUPTED = """
import os, signal, sys
wanted = sys.argv.pop(1)
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
from lidcam_cli.main import main
main()
"""


MODULES = (
    *("typer", "lidcam_cli.app", "lidcam_cli.localize", "rich.console", "pydantic", "numpy", "onnxruntime"),
    *("cv2", "onnxruntime.capi._pybind_state", "numpy._core.multiarray", "PIL.Image", "lidcam_cli.runs", "filelock"),
)


@pytest.mark.parametrize("module", MODULES)
def test_interrupted_while_a_module_is_imported(folder, module):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, "localize", "model.onnx", "red.png", "-o", "out"],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr.startswith("error interrupted") and len(done.stderr.splitlines()) == 1


TWICE = """
import os, signal, sys, threading, time
import numpy as np
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name != "cv2":  # imported by a thread of the pool
            return
        from lidcam_rt._kernels import components
        os.kill(os.getpid(), signal.SIGINT)
        main = threading.main_thread().ident
        while sys._current_frames()[main].f_code.co_name not in ("_wait_for_tstate_lock", "join"):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        mask = np.ones((300, 300), np.uint8)
        while True:
            components.largest_box(mask, True)
sys.meta_path.insert(0, Interrupts())
from lidcam_cli.main import main
main()
"""


def test_interrupted_twice_while_a_thread_is_in_a_kernel(folder):
    """The second Ctrl-C ends the wait for the thread: it is still in C++ when the process ends."""
    done = subprocess.run(
        [sys.executable, "-c", TWICE, "localize", "model.onnx", "red.png", "-o", "out"],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr.startswith("error interrupted") and len(done.stderr.splitlines()) == 1


def test_a_program_that_calls_the_command_goes_on(tmp_path):
    """Only where the process is the command's own does it end at once."""
    code = (
        "from lidcam_cli import main as command\n"
        "def interrupt(arguments): raise KeyboardInterrupt\n"
        "command._check_address_space = interrupt\n"
        "try: command.main(['doctor'])\n"
        "except SystemExit as end: print('goes on after', end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == "goes on after 130\n"


@pytest.mark.parametrize("megabytes", [50, 150, 400, 700, 1100, 1500])
def test_little_address_space(folder, megabytes):
    limited = f"ulimit -v {megabytes * 1024}; {LIDCAM} localize model.onnx red.png -o out --device cpu"
    done = shell(limited, folder)
    if megabytes < 1024:
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert megabytes == 50 or "not enough memory or threads (ulimit -v is" in done.stderr
    else:
        assert done.returncode in (0, 1, 8) and len(done.stderr.splitlines()) <= 3


def test_no_more_threads_are_allowed(folder):
    code = (
        "import threading\n"
        "def start(self): raise RuntimeError(\\\"can't start new thread\\\")\n"
        "threading.Thread.start = start\n"
    )
    done = shell(f'"{sys.executable}" -c "{code}{CODE}" localize model.onnx red.png -o out', folder)
    assert done.returncode == 1 and "not enough memory or threads (can't start new thread)" in done.stderr
