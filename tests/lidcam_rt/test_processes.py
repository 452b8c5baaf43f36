"""A Localizer and other processes: pickled it is loaded again, forked it refuses to work."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import artifacts
import pytest

import lidcam_rt
from lidcam_rt.errors import InputError
from lidcam_rt.results import Localization

OPTIONS = {"backend": "onnxruntime", "device": "cpu", "threads": 1, "max_pixels": 50_000, "deadline": 600.0}


def test_a_pickle_is_path_and_options(model, tmp_path, monkeypatch):
    monkeypatch.chdir(model.parent)
    with lidcam_rt.load(model.name, **OPTIONS) as localizer:
        data = pickle.dumps(localizer)
        expected = localizer(artifacts.picture("red"))
    assert len(data) < 1000  # no weights
    monkeypatch.chdir(tmp_path)
    with pickle.loads(data) as again:
        result = again(artifacts.picture("red"))
        assert (result.box, result.score) == (expected.box, expected.score)
        assert again.pipeline.deadline == 600 and again.pipeline.max_pixels == 50_000
        assert pickle.loads(pickle.dumps(again)).class_names == localizer.class_names


def test_a_segmenter_is_pickled_with_it(model):
    with lidcam_rt.load(model) as localizer:
        segment = lidcam_rt.CamSegmenter(localizer, lidcam_rt.SegmentOptions(refine="psa"), classes=[2, 0])
        again = pickle.loads(pickle.dumps(segment))
        picture = artifacts.picture("blue")
        assert (again(picture).labels == segment(picture).labels).all()


def test_results_can_be_pickled(localizer):
    result = pickle.loads(pickle.dumps(localizer(artifacts.picture("red"), refine="psa")))
    assert isinstance(result, Localization) and result.class_name == "red" and result.unrefined.box


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pools_of_new_processes(model, method):
    pictures = [artifacts.picture(colour) for colour in artifacts.CLASSES]
    with lidcam_rt.load(model, threads=1) as localizer:
        expected = [localizer(picture).box for picture in pictures]
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert [result.box for result in pool.map(localizer, pictures)] == expected


def test_what_cannot_be_pickled(localizer, model):
    with pytest.raises(InputError, match="not made by load"):
        pickle.dumps(lidcam_rt.Localizer(localizer.backend, localizer.manifest))
    closed = lidcam_rt.load(model)
    closed.close()
    with pytest.raises(InputError, match="closed"):
        pickle.dumps(closed)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_the_child_is_refused(model):
    """Also where the parent used it: the child's copy of the engine would wait for threads that are not there."""
    program = (
        "import os, sys, numpy as np, lidcam_rt\n"
        f"localizer = lidcam_rt.load({str(model)!r})\n"
        "picture = np.zeros((20, 30, 3), np.uint8)\n"
        "localizer(picture), list(localizer.stream([picture]))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    uses = (lambda: localizer(picture), lambda: localizer.batch([picture]),\n"
        "            lambda: localizer.stream([picture]), lambda: lidcam_rt.CamSegmenter(localizer)(picture))\n"
        "    answers = []\n"
        "    for use in uses:\n"
        "        try: use()\n"
        "        except lidcam_rt.errors.InputError as error: answers.append('before a fork' in str(error))\n"
        f"    new = lidcam_rt.load({str(model)!r})(picture)\n"
        "    os._exit(0 if answers == [True] * 4 and new.class_name else 1)\n"
        "_, status = os.waitpid(child, 0)\n"
        "localizer(picture)\n"
        "sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
