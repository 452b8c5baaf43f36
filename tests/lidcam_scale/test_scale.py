"""Jobs in local processes: rows, resuming, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import artifacts
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from scale_tables import plain_run, rows_of

from lidcam_rt.errors import ArtifactError, BackendError, DataError, InputError, OutputError
from lidcam_scale import Job, path_of, scale
from lidcam_scale.executors import Died, InProcess
from lidcam_scale.listing import list_pictures
from lidcam_scale.processes import Processes
from lidcam_scale.rows import _Remote


@pytest.fixture(scope="module")
def plain(model, photos):
    return plain_run(model, list_pictures([str(photos)]))


@pytest.fixture
def job(model):
    return Job(str(model))


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


@pytest.mark.parametrize("size", [1, 7, 1000, None])
def test_rows_are_those_of_a_plain_run_whatever_the_shards(job, photos, plain, tmp_path, size):
    summary = scale(job, list_pictures([str(photos)]), tmp_path, shard_size=size)
    rows = rows_of(tmp_path)
    assert rows == plain and summary.pictures == len(plain) == 41
    failed = [row for row in rows if row["error"]]
    assert len(failed) == summary.failed == 4 and all(row["class"] is None and row["x0"] is None for row in failed)
    manifest = json.loads((tmp_path / "_SUCCESS").read_text())
    assert manifest["rows"] == 41 and sum(part["rows"] for part in manifest["parts"]) == 41
    assert [part["name"] for part in manifest["parts"]] == [path.name for path in parts(tmp_path)]


def test_processes_give_the_same_rows(job, photos, plain, tmp_path):
    order = list_pictures([str(photos)])[::-1]
    scale(job, [*order, *order[:5]], tmp_path, executor=Processes(2), shard_size=5)
    assert rows_of(tmp_path) == plain


def test_masks_are_cocos_and_may_be_left_out(job, model, photos, tmp_path):
    mask_api = pytest.importorskip("pycocotools.mask")
    scale(job, [photos / "0000.png"], tmp_path / "with")
    (row,) = rows_of(tmp_path / "with")
    mask = mask_api.decode({"size": [row["height"], row["width"]], "counts": row["mask_rle"].encode()})
    columns, lines = mask.any(0).nonzero()[0], mask.any(1).nonzero()[0]
    assert (row["x0"], row["y0"], row["x1"], row["y1"]) == (columns[0], lines[0], columns[-1] + 1, lines[-1] + 1)
    scale(Job(str(model), mask=False), [photos / "0000.png"], tmp_path / "without")
    assert rows_of(tmp_path / "without") == [row | {"mask_rle": None}]


def test_a_name_that_is_not_utf8_comes_back(job, photos, tmp_path):
    scale(job, list_pictures([str(photos)]), tmp_path)
    (row,) = (row for row in rows_of(tmp_path) if row["path_bytes"] is not None)
    assert row["path"].endswith(r"caf\xe9.png") and row["class"] == "blue" and os.path.exists(path_of(row))  # noqa: PTH110


def test_the_second_run_does_nothing_and_a_damaged_part_is_done_again(job, photos, plain, tmp_path):
    pictures = list_pictures([str(photos)])
    scale(job, pictures, tmp_path, shard_size=8)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != ".lidcam.lock"}
    assert scale(job, pictures, tmp_path, shard_size=8).resumed == 41
    assert before == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name in before}
    first, second, third, fourth, *_ = parts(tmp_path)
    first.write_bytes(first.read_bytes()[:-9])
    data = bytearray(second.read_bytes())
    data[len(data) // 5] ^= 16
    second.write_bytes(data)
    shutil.copy(fourth, third)  # whole, but another shard's
    assert scale(job, pictures, tmp_path, shard_size=8).resumed == 41 - 24
    assert rows_of(tmp_path) == plain
    third.unlink()
    assert scale(job, pictures, tmp_path, shard_size=8).resumed == 41 - 8
    assert rows_of(tmp_path) == plain


@pytest.mark.parametrize("flip", range(0, 100, 7))
def test_no_flipped_bit_passes(job, photos, tmp_path, flip):
    pictures = list_pictures([str(photos)])[:6]
    scale(job, pictures, tmp_path, shard_size=6)
    wanted = rows_of(tmp_path)
    (part,) = parts(tmp_path)
    data = bytearray(part.read_bytes())
    data[len(data) * flip // 100] ^= 1 << flip % 8
    part.write_bytes(data)
    scale(job, pictures, tmp_path, shard_size=6)
    assert rows_of(tmp_path) == wanted


class _Broken(InProcess):
    """Ends after some tasks, as a kill does."""

    def __init__(self, after: int) -> None:
        self.after = after

    def run(self, function, tasks):
        for place, result in super().run(function, tasks):
            yield place, result
            if place + 1 == self.after:
                raise KeyboardInterrupt


def test_success_is_there_only_while_all_parts_are(job, photos, plain, tmp_path):
    pictures = list_pictures([str(photos)])
    with pytest.raises(KeyboardInterrupt):
        scale(job, pictures, tmp_path, shard_size=8, executor=_Broken(3))
    assert len(parts(tmp_path)) == 3 and not (tmp_path / "_SUCCESS").exists()
    (tmp_path / ".lidcam-0123456789ab.part").write_bytes(b"of a killed writer")
    done = []
    summary = scale(job, pictures, tmp_path, shard_size=8, progress=lambda *count: done.append(count))
    assert summary.resumed == 24 and done[0] == (8, 41) and done[-1] == (41, 41)
    assert rows_of(tmp_path) == plain and not list(tmp_path.glob(".lidcam-*.part"))
    parts(tmp_path)[0].unlink()
    with pytest.raises(KeyboardInterrupt):
        scale(job, pictures, tmp_path, shard_size=8, executor=_Broken(1))
    assert not (tmp_path / "_SUCCESS").exists()


def test_another_run_is_refused(job, model, photos, tmp_path):
    pictures = list_pictures([str(photos)])[:6]
    out = tmp_path / "out"
    scale(job, pictures, out)
    other = artifacts.build(tmp_path / "other.onnx", theta=0.5)
    for again, listed, size, why in (
        (Job(str(other)), pictures, None, "model_sha256 was"),
        (Job(str(model), refine="psa"), pictures, None, "refine was none, is .psa."),
        (job, pictures[:5], None, "pictures was 6, is 5"),
        (job, [*pictures[:5], str(photos / "new.png")], None, "list_sha256 was"),
        (job, pictures, 3, "shard_size was 1, is 3"),
    ):
        with pytest.raises(OutputError, match=f"holds another run: .*{why}"):
            scale(again, listed, out, shard_size=size)
    (out / "_run.json").write_text("[")
    with pytest.raises(OutputError, match="does not describe a run"):
        scale(job, pictures, out)
    (out / "_run.json").unlink()
    with pytest.raises(OutputError, match="already holds other results"):
        scale(job, pictures, out)


def test_rows_stay_apart_from_other_files(job, model, photos, tmp_path):
    """A folder is read as a whole: a mask or a text among the parts makes it unreadable."""
    pictures = list_pictures([str(photos)])[:4]
    for name in ("results.jsonl", "notes.txt"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(OutputError, match=rf"holds other files \({name}\)"):
            scale(job, pictures, folder)
        assert [path.name for path in folder.iterdir() if path.name != ".lidcam.lock"] == [name]
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / ".DS_Store").touch()
    scale(job, pictures, hidden)
    assert len(rows_of(hidden)) == 4
    from lidcam_cli.runs import RunFolder

    with pytest.raises(OutputError, match="already holds other results"), RunFolder(hidden, {"run": "localize"}):
        pass


def test_the_model_may_move_and_threads_may_change(job, model, photos, tmp_path):
    pictures = list_pictures([str(photos)])[:4]
    scale(job, pictures, tmp_path / "out")
    copy = Path(shutil.copy(model, tmp_path / "copy.onnx"))
    assert scale(Job(str(copy), threads=2), pictures, tmp_path / "out").resumed == 4


def test_one_job_at_a_time_in_a_folder(job, photos, tmp_path):
    pictures = list_pictures([str(photos)])[:4]

    class Second(InProcess):
        def run(self, function, tasks):
            with pytest.raises(OutputError, match="another process is writing into it"):
                scale(job, pictures, tmp_path)
            return super().run(function, tasks)

    scale(job, pictures, tmp_path, executor=Second())


def test_a_picture_that_is_gone_is_a_row(job, photos, tmp_path):
    pictures = [*list_pictures([str(photos)])[:2], str(tmp_path / "gone.png")]
    summary = scale(job, pictures, tmp_path / "out")
    assert summary.failed == 1 and "no such file" in summary.errors[0]


def test_a_picture_that_ends_its_process_is_a_row(job, photos, plain, tmp_path):
    pictures = list_pictures([str(photos)])
    bad = pictures[0]

    class Dying(InProcess):
        def run(self, function, tasks):
            for place, task in enumerate(tasks):
                names = task[1:] if isinstance(task, tuple) else task.pictures
                yield place, Died() if bad in names else function(task)

    summary = scale(job, pictures, tmp_path, executor=Dying(), shard_size=8)
    rows = rows_of(tmp_path)
    assert "died, twice" in rows[0]["error"] and rows[0]["engine"] is None
    assert rows[1:] == plain[1:] and summary.failed == 5

    class Dead(InProcess):
        def run(self, function, tasks):
            return ((place, Died()) for place in range(len(tasks)))

    with pytest.raises(BackendError, match="die on every picture"):
        scale(job, pictures, tmp_path / "dead", executor=Dead())


def test_the_output_may_be_inside_the_input(job, photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    first = scale(job, list_pictures([str(folder)]), folder / "rows")
    assert scale(job, list_pictures([str(folder)]), folder / "rows").resumed == first.pictures


def test_nothing_to_do(job, tmp_path):
    with pytest.raises(DataError, match="the list is empty"):
        scale(job, [], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it is empty"):
        list_pictures([str(tmp_path / "empty")])
    with pytest.raises(InputError, match="standard input was empty"):
        list_pictures(["-"], [])
    assert not (tmp_path / "out").exists()


def test_wrong_options(job, model, photos, tmp_path):
    pictures = [photos / "0000.png"]
    with pytest.raises(InputError, match="no CRF preset"):
        scale(Job(str(model), refine="nothing"), pictures, tmp_path / "a")
    with pytest.raises(InputError, match="batch_size"):
        scale(Job(str(model), batch_size=0), pictures, tmp_path / "a")
    with pytest.raises(InputError, match="shard_size"):
        scale(job, pictures, tmp_path / "a", shard_size=0)
    with pytest.raises(ArtifactError, match=r"none\.onnx: cannot be read"):
        scale(Job("none.onnx"), pictures, tmp_path / "a")
    with pytest.raises(InputError, match="nosuch:// cannot be opened"):
        scale(job, pictures, "nosuch://bucket/out")
    with pytest.raises(InputError, match="nosuch:// cannot be opened"):
        list_pictures(["nosuch://bucket/photos"])
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_output_error(job, photos, tmp_path, monkeypatch):
    pictures = list_pictures([str(photos)])[:4]
    scale(job, pictures, tmp_path)
    (part, *_), opened = parts(tmp_path), Path.open
    part.unlink()

    def full(path, mode="r", *rest, **more):
        return opened(Path("/dev/full"), "wb") if mode == "xb" else opened(path, mode, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OutputError, match="No space left on device"):
            scale(job, pictures, tmp_path)
    assert not part.exists()
    assert scale(job, pictures, tmp_path).resumed == 3


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_urls_in_and_out(job, model, photos, memory, tmp_path):
    for path in sorted(photos.glob("000*.png")):
        memory.pipe_file(f"/bucket/photos/{path.name}", path.read_bytes())
    memory.pipe_file("/bucket/photos/.hidden.png", b"x")
    memory.pipe_file("/bucket/photos/notes.txt", b"x")
    memory.pipe_file("/bucket/model.onnx", model.read_bytes())
    pictures = list_pictures(["memory://bucket/photos"])
    assert [Path(name).name for name in pictures] == sorted(path.name for path in photos.glob("000*.png"))
    summary = scale(Job("memory://bucket/model.onnx"), [*pictures, "memory://bucket/gone.png"], "memory://bucket/out")
    assert summary.failed == 2 and any("no such file" in error for error in summary.errors)
    memory.get("/bucket/out", str(tmp_path / "out"), recursive=True)
    ours = {Path(row["path"]).name: row for row in rows_of(tmp_path / "out") if not row["error"]}
    for row in plain_run(model, [str(path) for path in photos.glob("000*.png")]):
        if not row["error"]:
            assert ours[Path(row["path"]).name] | {"path": row["path"]} == row
    assert scale(Job("memory://bucket/model.onnx"), [*pictures, "memory://bucket/gone.png"],
                 "memory://bucket/out").resumed == summary.pictures  # fmt: skip
    with pytest.raises(OutputError, match="holds another run"):
        scale(Job("memory://bucket/model.onnx"), pictures, "memory://bucket/out")


def test_workers_that_see_another_place_are_noticed(job, photos, memory):
    """The memory of a process is its own: the parts of other processes are not there."""
    with pytest.raises(OutputError, match="not all see the same place"):
        scale(job, list_pictures([str(photos)])[:4], "memory://bucket/out", executor=Processes(1))


class _Moving(MemoryFileSystem):
    """A file system whose puts are not atomic, and whose writes fail when they are told to."""

    protocol = "moving"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    fail = False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("moving://", "memory://"))

    def pipe_file(self, path, value, **more):
        assert "/.lidcam-" in path, "written under its own name"
        if _Moving.fail:
            super().pipe_file(path, value[:10], **more)
            raise OSError(28, "No space left on device")
        super().pipe_file(path, value, **more)


def test_where_a_put_is_not_atomic_files_are_moved(job, photos):
    fsspec.register_implementation("moving", _Moving, clobber=True)
    pictures = list_pictures([str(photos)])[:4]
    system = fsspec.filesystem("moving")
    scale(job, pictures, "moving://bucket/out")
    names = {path.rpartition("/")[2] for path in system.find("/bucket/out")}
    assert {"_run.json", "_SUCCESS"} < names and len(names) == 6
    system.rm_file(next(path for path in system.find("/bucket/out") if "part-" in path))
    system.store["/bucket/out/.lidcam-0.part"] = system.store[next(iter(system.store))]
    _Moving.fail = True
    with pytest.raises(OutputError, match="No space left"):
        scale(job, pictures, "moving://bucket/out")
    _Moving.fail = False
    assert scale(job, pictures, "moving://bucket/out").resumed == 3
    assert {path.rpartition("/")[2] for path in system.find("/bucket/out")} == names


def test_a_remote_picture_that_cannot_be_read_says_why():
    source = _Remote("nosuch://bucket/a.png")
    with pytest.raises(OSError, match="cannot be read"):
        source.read()
    assert source.failure and "nosuch" in source.failure


def test_pictures_from_a_list_and_patterns(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    listed = list_pictures(["-"], ["0005.png\n", "deep/0001.png\r\n", "s3://bucket/a.png\n", "./0005.png\n"])
    assert listed == sorted([str(photos / "0005.png"), str(photos / "deep/0001.png"), "s3://bucket/a.png"])
    assert list_pictures(["000?.png"]) == sorted(str(path) for path in photos.glob("000?.png"))


def test_a_picture_may_be_a_link_under_two_names(job, photos, tmp_path):
    Image.open(photos / "0000.png").save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert scale(job, list_pictures([str(tmp_path)]), tmp_path / "out").pictures == 2
