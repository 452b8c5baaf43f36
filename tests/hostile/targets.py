"""What reads things from outside, each with good files to start from.

A target passes if it gives a result or raises a `LidcamError`; anything else is a finding.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import artifacts
import numpy as np
from PIL import Image, features

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: for reports.
        kind: of `mutate.MUTATORS`.
        seeds: gives the good files; called once, with a folder that the target may use.
        read: is given the bytes of a file and that folder.
    """

    name: str
    kind: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[bytes, Path], object]


def _photo(size: tuple[int, int] = (48, 36)) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    noise = np.random.default_rng(0).integers(0, 60, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.stack([x, y, 255 - x], 2) * 0.7 + noise, 0, 255).astype(np.uint8))


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _png(_: Path) -> list[bytes]:
    photo = _photo()
    return [
        _encoded(photo, "PNG"),
        _encoded(photo, "PNG", exif=_exif(6)),
        _encoded(photo.convert("RGBA"), "PNG"),
        _encoded(photo.convert("P"), "PNG"),
        _encoded(photo.convert("1"), "PNG"),
        _encoded(Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257), "PNG"),
    ]


def _jpeg(_: Path) -> list[bytes]:
    photo = _photo()
    return [
        _encoded(photo, "JPEG"),
        _encoded(photo, "JPEG", exif=_exif(8)),
        _encoded(photo, "JPEG", progressive=True),
        _encoded(photo.convert("L"), "JPEG"),
        _encoded(photo.convert("CMYK"), "JPEG"),
    ]


def _others(_: Path) -> list[bytes]:
    photo = _photo()
    out = [_encoded(photo, kind) for kind in ("BMP", "TIFF", "PPM", "TGA", "GIF")]
    out.append(_encoded(photo, "TIFF", compression="tiff_lzw", exif=_exif(3)))
    out += [_encoded(photo, kind) for kind in ("WEBP", "AVIF") if features.check(kind.lower())]
    return out


def _picture(data: bytes, _: Path) -> object:
    from lidcam_rt.image import read_image

    pixels = read_image(data, max_pixels=1 << 20)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, pixels.shape
    return pixels


def _tiny(folder: Path) -> list[bytes]:
    return [artifacts.build(folder / "seed.onnx", top_k=2).read_bytes()]


def _manifest(data: bytes, folder: Path) -> object:
    from lidcam_rt.artifact import read_manifest

    path = folder / "m.onnx"
    path.write_bytes(data)
    return read_manifest(path)


def _manifest_texts(_: Path) -> list[bytes]:
    return [artifacts.manifest(top_k=2).model_dump_json(exclude_none=True).encode()]


def _manifest_text(data: bytes, _: Path) -> object:
    import hashlib

    from lidcam_rt.artifact import DIGEST_KEY, MANIFEST_KEY, Manifest

    metadata = {MANIFEST_KEY: data.decode("utf-8", "replace"), DIGEST_KEY: ""}
    metadata[DIGEST_KEY] = hashlib.sha256(metadata[MANIFEST_KEY].encode("utf-8", "surrogatepass")).hexdigest()
    return Manifest.from_metadata(metadata, "m.onnx")


def _data_set(folder: Path) -> Path:
    place = folder / "set"
    if not place.exists():
        artifacts.data_set(place, 3)
    return place


def _of_data_set(name: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [(_data_set(folder) / name).read_bytes()]


def _open(folder: Path) -> object:
    from lidcam_bench.data import open_data

    data = open_data(str(folder))
    return [(record.labels, record.boxes) for record in data.records]


def _with_file(name: str, *without: str) -> Callable[[bytes, Path], object]:
    """Reads the data set with one of its files replaced."""

    def read(data: bytes, folder: Path) -> object:
        work = folder / f"with-{name.replace('/', '-')}"
        if not work.exists():
            shutil.copytree(_data_set(folder), work)
            for other in without:
                (work / other).unlink(missing_ok=True)
        (work / name).write_bytes(data)
        return _open(work)

    return read


def _mask(data: bytes, folder: Path) -> object:
    from lidcam_bench.data import open_data

    work = folder / "with-mask"
    if not work.exists():
        shutil.copytree(_data_set(folder), work)
    (work / "masks" / "00.png").write_bytes(data)
    return open_data(str(work)).records[0].truth()


def _masks(folder: Path) -> list[bytes]:
    return [(_data_set(folder) / "masks" / "00.png").read_bytes()]


def _label_json(_: Path) -> list[bytes]:
    rows = [{"file": "00.png", "labels": ["red"], "boxes": [[1, 2, 30, 40]]}, {"file": "01.png", "labels": [1]}]
    return [json.dumps(rows).encode()]


def _coco_texts(_: Path) -> list[bytes]:
    document = {
        "images": [{"id": 1, "file_name": "00.png", "width": 130, "height": 110}],
        "categories": [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 3, 40, 30], "iscrowd": 0,
             "segmentation": [[2, 3, 42, 3, 42, 33, 2, 33]]},
            {"id": 2, "image_id": 1, "category_id": 7, "bbox": [2, 3, 40, 30], "iscrowd": 1,
             "segmentation": {"size": [110, 130], "counts": [100, 50, 14150]}},
        ],
    }  # fmt: skip
    return [json.dumps(document).encode()]


def _coco(data: bytes, folder: Path) -> object:
    from lidcam_bench.data import open_data

    images = _data_set(folder) / "images"
    path = folder / "coco.json"
    path.write_bytes(data)
    return [record.truth() for record in open_data(f"coco:{path},{images}").records]


def _zips(folder: Path) -> list[bytes]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((_data_set(folder) / "images").iterdir()):
            with Image.open(path) as file:
                archive.writestr(f"{path.stem}.png", _encoded(file.convert("L"), "PNG"))
    return [buffer.getvalue()]


def _submission(data: bytes, folder: Path) -> object:
    from lidcam_bench.evaluation.submission import check_submission

    path = folder / "s.zip"
    path.write_bytes(data)
    return check_submission(path, sorted((_data_set(folder) / "images").iterdir()), track=3)


def _run(*arguments: object) -> int:
    """The exit status of a command."""
    from lidcam_cli.main import main

    with _quiet():
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def _started(folder: Path, verb: str) -> tuple[object, ...]:
    """The command of a run in `folder`/run, which was run to its end once and is kept as `folder`/run-good."""
    model, data = folder / "tiny.onnx", _data_set(folder)
    more = (data / "images",) if verb == "localize" else ("--data", data)
    command = (verb, model, *more, "-o", folder / "run")
    if not (folder / "run-good").exists():
        artifacts.build(model, top_k=2)
        assert _run(*command) == 0
        shutil.copytree(folder / "run", folder / "run-good")
    return command


def _of_run(verb: str, name: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        _started(folder, verb)
        return [(folder / "run-good" / name).read_bytes()]

    return seeds


def _resume(verb: str, name: str, *without: str) -> Callable[[bytes, Path], object]:
    """Goes on in a folder of which one file came from somebody else; nothing may be written outside of it."""

    def read(data: bytes, folder: Path) -> object:
        command, out = _started(folder, verb), folder / "run"
        shutil.rmtree(out)
        shutil.copytree(folder / "run-good", out)
        for other in without:
            (out / other).unlink()
        (out / name).write_bytes(data)
        outside = sorted(folder.iterdir())
        status = _run(*command)
        assert status in (0, 2, 3, 6, 8), status
        assert sorted(folder.iterdir()) == outside, "a file was written outside of the output folder"
        return None

    return read


def _checkpoints(folder: Path) -> list[bytes]:
    import torch
    from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
    from lidcam_training.models import ClassifierSpec, build_classifier

    torch.set_num_threads(1)
    spec = ClassifierSpec("lidcam_seresnet_small", num_classes=2)
    meta = CheckpointMeta(spec, ("cat", "dog"), (64, 48), recipe={"seed": 3}, metrics={"val_loss": 0.5})
    return [(save_checkpoint(build_classifier(spec), meta, folder / "c") / "checkpoint.json").read_bytes()]


def _checkpoint(data: bytes, folder: Path) -> object:
    """The SHA-256 is made to fit, so that what is behind it is reached."""
    from lidcam_training.checkpoint import _digest, load_checkpoint

    with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(data)
        if isinstance(record, dict):
            data = json.dumps({**record, "sha256": _digest(record)}).encode()
    (folder / "c" / "checkpoint.json").write_bytes(data)
    return load_checkpoint(folder / "c")


def _states(folder: Path) -> list[bytes]:
    import torch
    from lidcam_training.tensor_file import write_tensor_file

    keeper = {"_Keeper": {"rows": [{"epoch": 0}], "resume": (1, 0), "finished": False}}
    write_tensor_file(folder / "s", {"epoch": 1, "callbacks": keeper, 3: [torch.arange(6.0).view(2, 3), None]})
    return [(folder / "s").read_bytes()]


def _state(data: bytes, folder: Path) -> object:
    from lidcam_training.state import PlainCheckpoints, read_progress

    (folder / "s").write_bytes(data)
    read_progress(folder / "s", "_Keeper")
    return PlainCheckpoints().load_checkpoint(folder / "s")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Sends what the command line prints nowhere."""
    from lidcam_cli import console

    with Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace") as sink:  # as main opens them
        before = console.out.file, console.err.file
        console.out.file = console.err.file = sink
        try:
            yield
        finally:
            console.out.file, console.err.file = before


_TORCH = (
    Target("checkpoint.json", "json", _checkpoints, _checkpoint),
    Target("state of training", "binary", _states, _state),
)

#: Every reader of something that may come from somebody else.
TARGETS: tuple[Target, ...] = (
    Target("png", "png", _png, _picture),
    Target("jpeg", "jpeg", _jpeg, _picture),
    Target("other pictures", "binary", _others, _picture),
    Target("artifact's wire format", "protobuf", _tiny, _manifest),
    Target("manifest", "json", _manifest_texts, _manifest_text),
    Target("classes.txt", "lines", _of_data_set("classes.txt"), _with_file("classes.txt")),
    Target("labels.csv", "lines", _of_data_set("labels.csv"), _with_file("labels.csv")),
    Target("labels.json", "json", _label_json, _with_file("labels.json", "labels.csv")),
    Target("COCO", "json", _coco_texts, _coco),
    Target("mask", "png", _masks, _mask),
    Target("submission", "binary", _zips, _submission),
    Target("journal", "lines", _of_run("localize", "results.jsonl"), _resume("localize", "results.jsonl")),
    Target("identity of a run", "json", _of_run("localize", "run.json"), _resume("localize", "run.json")),
    Target("evaluation's records", "lines", _of_run("eval", "results.jsonl"), _resume("eval", "results.jsonl")),
    Target("evaluation's sums", "binary", _of_run("eval", "state.npz"), _resume("eval", "state.npz")),
    *(() if importlib.util.find_spec("torch") is None else _TORCH),
)
