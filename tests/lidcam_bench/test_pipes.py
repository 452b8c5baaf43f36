"""A pipe or a device in the place of a file is refused: nothing waits for a writer, or reads without an end."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from lidcam_bench.data import open_data
from lidcam_bench.data.text import read_json, read_text
from lidcam_bench.data.xml_boxes import read_boxes
from lidcam_bench.evaluation.submission import check_submission
from lidcam_bench.latency.results import load_results

from lidcam_cli.runs import RunFolder
from lidcam_rt.artifact import read_manifest
from lidcam_rt.backends.engine_file import read_sidecar
from lidcam_rt.errors import LidcamError
from lidcam_rt.files import file_sha256, open_file, read_file


def write(path: Path, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        path.write_bytes(content)


@pytest.fixture
def pipe(tmp_path: Path):
    """Makes a named pipe with a writer: who reads it gets its content, and not an error."""
    threads, places = [], []

    def make(name: str = "pipe", content: bytes = b"{}") -> Path:
        path = tmp_path / name
        os.mkfifo(path)
        thread = threading.Thread(target=write, args=(path, content))
        thread.start()
        threads.append(thread)
        places.append(path)
        return path

    yield make
    for thread, path in zip(threads, places, strict=True):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        thread.join()
        os.close(descriptor)


READERS: dict[str, Callable[[Path], object]] = {
    "text": read_text,
    "json": read_json,
    "xml": lambda path: read_boxes(path, first_pixel=1),
    "results of bench": load_results,
    "artifact": read_manifest,
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("place", ["pipe", "/dev/zero", "/dev/null"])
def test_readers(pipe, kind, place):
    path = pipe() if place == "pipe" else Path(place)
    with pytest.raises(LidcamError, match="not a regular file"):
        READERS[kind](path)


@pytest.mark.parametrize("name", ["labels.csv", "classes.txt", "labels.json"])
def test_a_folder_with_a_pipe(pipe, tmp_path, name):
    """It is no file: the data set is without it."""
    (tmp_path / "images").mkdir()
    pipe(name, b"file,label\n")
    with pytest.raises(LidcamError):
        open_data(str(tmp_path))


def test_coco(pipe, tmp_path):
    with pytest.raises(LidcamError, match="not a regular file"):
        open_data(f"coco:{pipe('c.json')}")


def test_a_submission(pipe, tmp_path):
    with pytest.raises(LidcamError, match="pipe"):
        check_submission(pipe(), [tmp_path / "a.png"], track=3)


def test_the_identity_of_a_run(pipe, tmp_path):
    pipe("run.json")
    with pytest.raises(LidcamError), RunFolder(tmp_path, {"a": 1}):
        pass


def test_a_sidecar(pipe, tmp_path):
    (tmp_path / "m.engine").write_bytes(b"x")
    pipe("m.engine.json")
    with pytest.raises(LidcamError, match="not a regular file"):
        read_sidecar(tmp_path / "m.engine")


def test_files(pipe, tmp_path):
    path = pipe()
    for read in (open_file, read_file, file_sha256):
        with pytest.raises(OSError, match="not a regular file"):
            read(path)
        with pytest.raises(IsADirectoryError):
            read(tmp_path)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"content")
    assert read_file(tmp_path / "file") == b"content"
