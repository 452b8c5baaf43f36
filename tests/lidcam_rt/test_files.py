from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lidcam_rt.errors import OutputError
from lidcam_rt.files import former, output_folder, replacing, safe_name, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_with_the_permissions_of_the_process(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"one")
        write_atomically(tmp_path / "a", memoryview(b"two"), sync=True)
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"two" and names(tmp_path) == ["a"]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "a", tmp_path / "folder"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_atomically(path, b"new")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomically(tmp_path / "a", b"new", sync=True)
    with pytest.raises(OutputError, match="No space left on device"), replacing(tmp_path / "a") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a", "folder"]


def test_a_device_is_not_replaced_by_a_file():
    with pytest.raises(OutputError, match="is a device or a pipe"):
        write_atomically(Path("/dev/null"), b"x")


def test_an_error_in_the_block_changes_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a") as temporary:
        temporary.write_bytes(b"new")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_folders_are_replaced_whole(tmp_path):
    for text in ("one", "two"):
        with replacing(tmp_path / "deep" / "folder") as temporary:
            temporary.mkdir()
            (temporary / text).write_text(text)
        assert names(tmp_path / "deep" / "folder") == [text]
    assert names(tmp_path / "deep") == ["folder"]


def test_one_writer_at_a_time(tmp_path):
    with replacing(tmp_path / "a") as temporary:
        temporary.write_bytes(b"first")
        with pytest.raises(OutputError, match="a: another process is writing it"), replacing(tmp_path / "a"):
            pass
        with replacing(tmp_path / "b") as other:
            other.write_bytes(b"other")
    with output_folder(tmp_path / "f"), pytest.raises(OutputError, match="into it"), output_folder(tmp_path / "f"):
        pass
    assert (tmp_path / "a").read_bytes() == b"first" and names(tmp_path) == ["a", "b", "f"]


def test_writers_of_one_name_leave_one_of_their_contents(tmp_path):
    contents = [bytes([65 + i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(tmp_path / "a", data)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in contents and names(tmp_path) == ["a"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from lidcam_rt.files import output_folder, replacing, write_atomically
how, folder = sys.argv[1], Path(sys.argv[2])
if how == "file":
    with replacing(folder / "out") as temporary:
        temporary.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
if how == "small":
    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with output_folder(folder):
        write_atomically(folder / "out", b"half")
rename = Path.rename
def once(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
if how == "swap":
    Path.rename = once
with replacing(folder / "out") as temporary:
    temporary.mkdir()
    (temporary / "half").touch()
    if how == "folder":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["file", "small", "folder", "swap"])
def test_what_a_killed_writer_leaves_is_removed_by_the_next(tmp_path, how):
    old = tmp_path / "out"
    if how in ("folder", "swap"):
        old.mkdir()
        (old / "old").touch()
    else:
        old.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", _KILLED, how, tmp_path], check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert any(name.startswith(".") for name in names(tmp_path))
    kept = former(old) if how == "swap" else old
    assert names(kept) == ["old"] if how in ("folder", "swap") else kept.read_bytes() == b"old"
    with output_folder(tmp_path):
        if how == "small":
            write_atomically(old, b"new")
        else:
            with replacing(old) as temporary:
                temporary.write_bytes(b"new") if how == "file" else temporary.mkdir()
    assert names(tmp_path) == [".lidcam.lock", "out"]


@pytest.mark.parametrize("how", ["file", "folder", "swap"])
def test_what_a_killed_writer_leaves_in_the_folder_of_a_run_is_removed_by_the_next_run(tmp_path, how):
    """Also where the next run does not write the same file again."""
    if how == "swap":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").touch()
    done = subprocess.run([sys.executable, "-c", _KILLED, how, tmp_path], check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    (tmp_path / ".other.lock").touch()  # of another program
    with replacing(tmp_path / "busy") as temporary:
        temporary.touch()
        with output_folder(tmp_path):
            assert temporary.exists()
    left = [".lidcam.lock", ".other.lock", "busy"]
    assert names(tmp_path) == (sorted([*left, "out"]) if how == "swap" else left)
    assert how != "swap" or names(tmp_path / "out") == ["old"]


@pytest.mark.parametrize(
    ("text", "name"),
    [("a b/c", "a_b_c"), ("../../x", "x"), ("", "unnamed"), ("..", "unnamed"), ("a\0b", "a_b"), ("x\x1b[31m", "x_31m")],
)
def test_safe_names(text, name):
    assert safe_name(text) == name == safe_name(name)


def test_leftovers_in_sub_folders_are_removed_but_not_those_of_another_run(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / ".lidcam-0.part").touch()
    with output_folder(tmp_path / "run"):
        (tmp_path / "run" / ".lidcam-1.part").touch()
        with output_folder(tmp_path):
            assert not (tmp_path / "samples" / ".lidcam-0.part").exists()
            assert (tmp_path / "run" / ".lidcam-1.part").exists()
