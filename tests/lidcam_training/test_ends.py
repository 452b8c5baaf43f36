"""How training and `data make` end: interrupted, on a full disk, twice at a time."""

import resource
import signal
import subprocess
import sys

import pytest
import torch
from lidcam_training.fit import fit
from lidcam_training.recipe import read_recipe
from lidcam_training.tensor_file import read_tensor_file, write_tensor_file

from lidcam_rt.errors import DataError, OutputError
from lidcam_rt.files import output_folder

LIDCAM = [sys.executable, "-c", "from lidcam_cli.main import main; main()"]


def training(clutter, run, *more):
    options = ["model.backbone=lidcam_seresnet_small", "data.size=32", "data.batch_size=16", "accelerator=cpu"]
    source = f"data.source=clutter-fashion:{clutter}"
    return [*LIDCAM, "train", "clutter_fashion", source, *options, *more, "-o", str(run)]


def making(sources, folder):
    counts = ["--train", "60", "--val", "10", "--test", "10", "--size", "48"]
    paths = ["--source", str(sources[0]), "--backgrounds", str(sources[1])]
    return [*LIDCAM, "data", "make", "clutter-fashion", str(folder), *paths, *counts]


def hidden(folder):
    """Hidden files but the lock that marks an output folder."""
    return [path.name for path in folder.rglob(".*") if path.name != ".lidcam.lock"]


#: Ctrl-C at a named moment, to the whole group as a terminal sends it.
STOPS = """
import os, signal, sys
import lidcam_training.module as module
import lidcam_training.state as states
import PIL.Image
moment = sys.argv.pop(1)
seen = 0
def stop():
    os.killpg(0, signal.SIGINT)
def step(self, batch, index, step=module.ClassifierModule.training_step):
    if moment == "step" and (self.current_epoch, index) == (1, 4):
        stop()
    return step(self, batch, index)
def write(path, value, write=states.write_tensor_file):
    write(path, value)
    if moment == "state" and value["epoch"] == 1:
        stop()
def save(self, *rest, save=PIL.Image.Image.save, **more):
    global seen
    seen += 1
    if moment == "picture" and seen == 30:
        stop()
    save(self, *rest, **more)
module.ClassifierModule.training_step, states.write_tensor_file, PIL.Image.Image.save = step, write, save
from lidcam_cli.main import main
main()
"""


MOMENTS = [("step", ()), ("step", ("data.workers=2",)), ("state", ()), ("picture", ())]


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "more"), MOMENTS)
def test_interrupted_and_run_again(tmp_path, clutter, sources, moment, more):
    out = tmp_path / "out"
    command = making(sources, out) if moment == "picture" else training(clutter, out, "epochs=2", *more)
    stopped = subprocess.run(
        [sys.executable, "-c", STOPS, moment, *command[3:]], capture_output=True, text=True, start_new_session=True
    )
    assert stopped.returncode == 130, stopped.stderr[-2000:]
    assert "Traceback" not in stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith("error interrupted")
    assert "run the same command again for the rest" in " ".join(stopped.stderr.split())
    assert not hidden(tmp_path)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]
    assert not hidden(tmp_path)


def test_an_interrupt_leaves_the_handler_and_comes_out_as_one(tmp_path, clutter, monkeypatch):
    from lidcam_training.module import ClassifierModule

    def step(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ClassifierModule, "training_step", step)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(read_recipe(None, training(clutter, tmp_path, "epochs=1")[5:-2]), tmp_path / "r", progress=False)
    assert signal.getsignal(signal.SIGINT) == before


def limited(size):
    """No file may become larger: stands in for a full disk."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "size"),
    [("train", 400), ("train", 200_000), ("train, tensorboard", 800), ("make", 400), ("make", 900)],
)
def test_a_full_disk(tmp_path, clutter, sources, verb, size):
    out = tmp_path / "out"
    more = ("epochs=1", "data.limit=32", "logger=tensorboard" if "board" in verb else "logger=csv")
    command = making(sources, out) if verb == "make" else training(clutter, out, *more)
    full = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited(size))
    assert full.returncode == 6, full.stderr[-2000:]
    assert "Traceback" not in full.stderr and "cannot be written (File too large)" in full.stderr
    assert not hidden(tmp_path)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]


def test_one_run_at_a_time_in_a_folder(tmp_path, clutter):
    run = tmp_path / "r"
    with output_folder(run), pytest.raises(OutputError, match="another process is writing into it"):
        fit(read_recipe(None, training(clutter, run, "epochs=1")[5:-2]), run, progress=False)


OTHERS = [b"", b"[" * 100_000, b"3", b"{}", b'{"recipe": 3, "data_fingerprint": ""}', b"\xff"]


@pytest.mark.parametrize("content", OTHERS)
def test_a_run_json_of_something_else(tmp_path, clutter, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(DataError, match=r"run\.json: not from a training run"):
        fit(read_recipe(None, training(clutter, tmp_path, "epochs=1")[5:-2]), tmp_path, progress=False)


@pytest.mark.slow
def test_a_state_that_does_not_fit_the_run(tmp_path, clutter):
    run, chosen = tmp_path / "r", read_recipe(None, training(clutter, tmp_path, "epochs=2", "data.limit=32")[5:-2])
    fit(chosen, run, progress=False)
    state = read_tensor_file(run / "state.safetensors")
    keeper = next(key for key in state["callbacks"] if key.startswith("_Keeper"))
    state["callbacks"][keeper] |= {"finished": False, "resume": (1, 0)}
    for key, value in (("state_dict", {"x": torch.zeros(3)}), ("optimizer_states", [{"state": 3}]), ("so_far", 3)):
        write_tensor_file(run / "state.safetensors", {**state, key: value})
        with pytest.raises(DataError, match="remove it to begin"):
            fit(chosen, run, progress=False)
