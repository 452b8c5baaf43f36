"""An evaluation by several workers: the bytes of one process, also when it is stopped and goes on with others."""

from __future__ import annotations

import os
import subprocess
import sys

import artifacts
import pytest
from lidcam_bench.data import ImageSet
from lidcam_bench.evaluation import EvalOptions, evaluate, open_data

from lidcam_rt.errors import BackendError, InputError
from lidcam_scale.executors import Died, InProcess
from lidcam_scale.processes import Processes

ALL = EvalOptions(metrics=("track3", "wsol", "track1"), gt_known=True, replicates=20, save_every=4, batch_size=2)
FILES = ("results.json", "images.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = artifacts.data_set(tmp_path_factory.mktemp("data") / "colours", 49, noise=60)
    (root / "images" / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


@pytest.fixture(scope="module")
def data(folder):
    return open_data(str(folder))


@pytest.fixture(scope="module")
def whole(localizer, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    evaluate(localizer, data, out, ALL)
    return out


def same(out, whole):
    return all((out / name).read_bytes() == (whole / name).read_bytes() for name in FILES)


class Backwards(InProcess):
    """The last part first, as workers of different speeds may have it."""

    def run(self, function, tasks):
        for place, result in super().run(function, tasks[::-1]):
            yield len(tasks) - 1 - place, result


@pytest.mark.slow
@pytest.mark.parametrize("executor", [InProcess(), Backwards(), Processes(2)], ids=["here", "backwards", "two"])
def test_workers_give_the_bytes_of_one_process(localizer, data, whole, tmp_path, executor):
    seen = []
    evaluate(localizer, data, tmp_path, ALL, executor=executor, progress=lambda done, total: seen.append((done, total)))
    assert same(tmp_path, whole)
    assert seen[0] == (0, 49) and seen[-1] == (49, 49) and len(seen) == 26


class _Stopped(InProcess):
    def run(self, function, tasks):
        for place, result in super().run(function, tasks):
            if place == 5:
                raise KeyboardInterrupt
            yield place, result


@pytest.mark.slow
def test_stopped_and_resumed_with_another_executor(localizer, data, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evaluate(localizer, data, tmp_path, ALL, executor=_Stopped())
    seen = []
    evaluate(localizer, data, tmp_path, ALL, executor=Backwards(), progress=lambda done, total: seen.append(done))
    assert seen[0] in (4, 8, 10) and same(tmp_path, whole)
    again = []
    evaluate(localizer, data, tmp_path, ALL, progress=lambda done, total: again.append(done))
    assert again == [49] and same(tmp_path, whole)


def test_a_part_without_a_truth_is_counted_too(localizer, data, tmp_path):
    """The first pictures have no mask, box or label: a part of them alone would be refused as a data set."""
    bare = [type(record)(record.image) for record in data.records[:4]]
    mixed = ImageSet(data.name, data.class_names, (*bare, *data.records[8:]))
    options = EvalOptions(replicates=5, batch_size=2)
    evaluate(localizer, mixed, tmp_path / "one", options)
    evaluate(localizer, mixed, tmp_path / "many", options, executor=Backwards())
    assert same(tmp_path / "many", tmp_path / "one")


def test_workers_that_die_or_differ(localizer, data, tmp_path, monkeypatch):
    class Dead(InProcess):
        def run(self, function, tasks):
            yield 0, Died()

    with pytest.raises(BackendError, match=r"died twice while it counted 2 pictures from .*00\.png on"):
        evaluate(localizer, data, tmp_path / "dead", ALL, executor=Dead())

    class Other(InProcess):
        def run(self, function, tasks):
            from dataclasses import replace

            return super().run(function, [replace(task, engine="other on cuda:0, fp16") for task in tasks])

    with pytest.raises(BackendError, match="the evaluation began with other on cuda:0"):
        evaluate(localizer, data, tmp_path / "other", ALL, executor=Other())


@pytest.mark.slow
def test_on_ray(localizer, data, whole, tmp_path):
    pytest.importorskip("ray", reason="extra ray is not installed")
    from lidcam_scale.on_ray import RayActors

    evaluate(localizer, data, tmp_path, ALL, executor=RayActors("local", workers=2))
    assert same(tmp_path, whole)


@pytest.mark.slow
def test_on_the_command_line(model, folder, tmp_path):
    pytest.importorskip("matplotlib")
    lidcam = [sys.executable, "-c", "from lidcam_cli.main import main; main()"]
    for name, more in (("one", ()), ("two", ("--processes", "2"))):
        command = ["eval", str(model), "--data", str(folder), "-o", str(tmp_path / name), "--replicates", "5", *more]
        subprocess.run([*lidcam, *command], check=True, capture_output=True, env={**os.environ, "COLUMNS": "80"})
    assert same(tmp_path / "two", tmp_path / "one")
    both = ["eval", str(model), "--data", str(folder), "-o", str(tmp_path / "x"), "--ray", "local", "--processes", "2"]
    done = subprocess.run([*lidcam, *both], capture_output=True, text=True)
    assert done.returncode == 2 and "choose one" in done.stderr


def test_a_localizer_that_cannot_travel(localizer, data, tmp_path, monkeypatch):
    monkeypatch.setattr(localizer, "_loaded_with", None)
    with pytest.raises(InputError, match="not made by load"):
        evaluate(localizer, data, tmp_path, ALL, executor=InProcess())
