"""JPEG decoded on the GPU: how far its pixels are from the CPU's, and what that does to the way from file to box."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.crf import photos
from benchmarks.gpu.report import Cannot, Wrong
from benchmarks.gpu.resident import SIZE, figures

__all__ = ["check_decoding"]

#: How far pixels may differ on average, of 255: rounding is below 1; other colours or rows are far above.
LIMIT = 3.0

Decode = Callable[[Sequence[Any]], list[Any]]


def check_decoding(
    data: dict[str, Any], artifact: Path, *, rehearsal: bool = False, index: int = 0, batches: Any = (1, 8, 32),
    seconds: float = 1.5, open: Any = None,
) -> None:  # fmt: skip
    """Pixels against those of `lidcam_rt.image`, then the resident pipeline from files, decoded here and there.

    Args:
        data: receives the results.
        artifact: to localize with.
        rehearsal: nvImageCodec's decoders on the CPU are compared, and nothing is timed.
        index: number of the GPU.
        batches: pictures per call.
        seconds: per contender and batch.
        open: makes a `ResidentLocalizer`; None: the class itself.

    Raises:
        Cannot: nvImageCodec or ONNX Runtime's CUDA provider is missing.
        Wrong: a kind of file was not decoded, or its pixels are further off than rounding explains.
    """
    from lidcam_rt.errors import BackendError, MissingExtraError

    try:
        decode, close = _on_the_cpu() if rehearsal else _on_the_gpu(index)
    except (BackendError, MissingExtraError) as error:
        raise Cannot(str(error)) from None
    try:
        data["pixels"] = _apart(decode, photos(np.random.default_rng(3), 4, *SIZE))
    finally:
        close()
    for kind, row in data["pixels"].items():
        print(f"   {kind}: {row}", flush=True)
    wrong = {kind: row for kind, row in data["pixels"].items() if not row["decoded"] or row["mean"] > LIMIT}
    if wrong:
        raise Wrong(f"pixels decoded on the device are not those of the CPU: {wrong}")
    if rehearsal:
        raise Cannot("compared on the CPU; the resident pipeline needs ONNX Runtime's CUDA provider")
    _time(data, artifact, index, batches, seconds, open)


def _jpeg(picture: Any, **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def _on_the_gpu(index: int) -> tuple[Decode, Callable[[], None]]:
    from lidcam_gpu.decoding import open_decoder
    from lidcam_rt.backends.cuda_runtime import open_runtime

    cuda = open_runtime(index)
    cuda.use()
    stream = cuda.new_stream()
    try:
        decoder = open_decoder(index, stream)
    except BaseException:
        cuda.free_stream(stream)
        raise

    def decode(files: Sequence[Any]) -> list[Any]:
        images = decoder(files)
        cuda.wait(stream)
        return [None if image is None else np.asarray(image.cpu()) for image in images]

    def close() -> None:
        decoder.close()
        cuda.free_stream(stream)

    return decode, close


def _on_the_cpu() -> tuple[Decode, Callable[[], None]]:
    """The calls of nvImageCodec without a GPU, by libjpeg-turbo."""
    import importlib

    from lidcam_rt.errors import MissingExtraError

    try:
        api = importlib.import_module("nvidia.nvimgcodec")
    except ImportError:
        raise MissingExtraError("decoding on the device", "gpu-decode", ("nvidia.nvimgcodec",)) from None
    only = [api.Backend(api.BackendKind.CPU_ONLY)]
    decoder = api.Decoder(device_id=api.NVIMGCODEC_DEVICE_CPU_ONLY, backends=only, options=":fancy_upsampling=1")
    params = api.DecodeParams(apply_exif_orientation=False, color_spec=api.ColorSpec.SRGB)

    def decode(files: Sequence[Any]) -> list[Any]:
        images = decoder.decode([api.CodeStream(file.data) for file in files], params=params, cuda_stream=0)
        return [None if image is None else np.asarray(image.cpu()) for image in images]

    return decode, lambda: None


def _apart(decode: Decode, pictures: Any) -> dict[str, Any]:
    """Largest and mean difference of a pixel's values from the CPU's, by kind of file."""
    from lidcam_gpu.decoding import Encoded
    from lidcam_rt.image import read_image

    rows = {}
    for kind, options in (
        ("4:4:4", {"subsampling": 0}), ("4:2:2", {"subsampling": 1}), ("4:2:0", {"subsampling": 2}),
        ("4:2:0, progressive", {"subsampling": 2, "progressive": True}),
    ):  # fmt: skip
        files = [Encoded(_jpeg(picture, **options), kind, SIZE) for picture in pictures]
        got = decode(files)
        there = [(image, file) for image, file in zip(got, files, strict=True) if image is not None]
        apart = [np.abs(image.astype(int) - read_image(file.data)) for image, file in there]
        rows[kind] = {
            "decoded": len(there), "of": len(files),
            "largest": max((int(values.max()) for values in apart), default=0),
            "mean": round(float(np.mean([values.mean() for values in apart])), 4) if apart else 0.0,
        }  # fmt: skip
    return rows


def _time(data: dict[str, Any], artifact: Path, index: int, batches: Any, seconds: float, open: Any) -> None:
    from lidcam_gpu.resident import ResidentLocalizer
    from lidcam_rt.errors import BackendError
    from lidcam_rt.image import read_image

    files = [_jpeg(picture) for picture in photos(np.random.default_rng(4), max(batches), *SIZE)]
    pixels = [read_image(file) for file in files]
    opened: dict[str, Any] = {}
    try:
        for where in ("cpu", "device"):
            try:
                opened[where] = (open or ResidentLocalizer)(
                    artifact, device=f"cuda:{index}", max_batch=max(batches), decode=where
                )
            except BackendError as error:
                raise Cannot(str(error)) from None
        theirs, ours = opened["cpu"](files), opened["device"](files)
        data["agreement"] = {
            "pictures": len(files),
            "decoded on the device": ours.decoded.count("device"),
            "other class": int(np.count_nonzero(ours.class_ids != theirs.class_ids)),
            "other box": sum(a != b for a, b in zip(ours.boxes, theirs.boxes, strict=True)),
        }
        print(f"   {data['agreement']}", flush=True)
        contenders = {
            "pixels": (opened["cpu"], pixels), "files, decoded on the CPU": (opened["cpu"], files),
            "files, decoded on the device": (opened["device"], files),
        }  # fmt: skip
        data["rows"] = []
        for batch in batches:
            samples: dict[str, list[float]] = {name: [] for name in contenders}
            for run, given in contenders.values():
                run(given[:batch])
            end = time.perf_counter() + seconds * len(contenders)
            while time.perf_counter() < end or not all(samples.values()):
                for name, (run, given) in contenders.items():
                    begin = time.perf_counter()
                    run(given[:batch])
                    samples[name].append(time.perf_counter() - begin)
            row = {name: figures(taken, batch) for name, taken in samples.items()}
            data["rows"].append({"batch": batch, "contenders": row})
            print(f"   batch {batch}: {row}", flush=True)
    finally:
        for one in opened.values():
            one.close()
