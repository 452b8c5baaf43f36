"""Encoded pictures: JPEG decoded on the device by nvImageCodec on request, everything else by the CPU's reader."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lidcam_gpu.jpeg import plain_jpeg
from lidcam_rt.errors import BackendError, InputError, MissingExtraError
from lidcam_rt.image import RgbImage, describe, read_image
from lidcam_rt.image.sources import as_file
from lidcam_rt.text import cut

__all__ = ["DeviceDecoder", "Encoded", "PictureReader", "is_encoded", "open_decoder"]

_MAX_THREADS = 16
#: The upsampling of chroma that libjpeg does; without it nvJPEG repeats the samples.
_OPTIONS = ":fancy_upsampling=1"


class Encoded(io.BytesIO):
    """The bytes of a picture's file, and the picture's name in messages.

    Args:
        data: the file.
        name: of the picture.
        size: its (height, width) where it may be decoded on the device.
    """

    def __init__(self, data: bytes, name: str, size: tuple[int, int] | None = None) -> None:
        super().__init__(data)
        self.data, self.name, self.size = data, name, size


class DeviceDecoder:
    """JPEG on one GPU, through nvImageCodec.

    Args:
        api: the module `nvidia.nvimgcodec`.
        index: number of the GPU.
        stream: on which the decoder enqueues its work; pictures are ready for what follows on it.

    Raises:
        BackendError: nvImageCodec cannot be used there, or has no nvJPEG.
    """

    def __init__(self, api: Any, index: int, stream: int) -> None:
        self._api, self._stream = api, stream
        # Without its own decoders on the CPU: what the GPU does not take is left to the CPU's reader.
        kinds = (api.BackendKind.HW_GPU_ONLY, api.BackendKind.GPU_ONLY, api.BackendKind.HYBRID_CPU_GPU)
        try:
            self._decoder = api.Decoder(
                device_id=index, backends=[api.Backend(kind) for kind in kinds], options=_OPTIONS
            )
            self._params = api.DecodeParams(apply_exif_orientation=False, color_spec=api.ColorSpec.SRGB)
        except Exception as error:
            raise BackendError(
                f"nvImageCodec cannot be used on cuda:{index} ({cut(str(error).strip(), 300)}): use decode='cpu'"
            ) from error
        if self([_sample()])[0] is None:  # nvJPEG is a package of its own, and nvImageCodec only logs its absence
            self.close()
            raise BackendError(
                f"nvImageCodec decodes no JPEG on cuda:{index}; nvJPEG may be missing: "
                "pip install 'lidcam-rt[gpu-decode]', or use decode='cpu'"
            )

    def __call__(self, pictures: Sequence[Encoded]) -> list[Any]:
        """Enqueue the decoding of files that `plain_jpeg` takes.

        Returns:
            per file an array on the device, uint8 [H, W, 3] RGB, or None where it was not decoded.

        Raises:
            BackendError: nvImageCodec failed on all of them.
        """
        try:
            streams = [self._api.CodeStream(picture.data) for picture in pictures]
            images = self._decoder.decode(streams, params=self._params, cuda_stream=self._stream)
        except Exception as error:
            raise BackendError(
                f"nvImageCodec failed on {len(pictures)} pictures ({cut(str(error).strip(), 300)}): use decode='cpu'"
            ) from error
        return [image if _fits(image, picture) else None for image, picture in zip(images, pictures, strict=True)]

    def close(self) -> None:
        """Free the decoder; its stream has been waited for and stays alive."""
        self._decoder = None


def open_decoder(index: int, stream: int) -> DeviceDecoder:
    """The decoder of a GPU of this machine.

    Raises:
        MissingExtraError: nvImageCodec is not installed.
        BackendError: it cannot be used.
    """
    try:
        api = importlib.import_module("nvidia.nvimgcodec")
    except ImportError:
        raise MissingExtraError("decode='device'", "gpu-decode", ("nvidia.nvimgcodec",)) from None
    return DeviceDecoder(api, index, stream)


class PictureReader:
    """Turns the pictures of a batch into arrays in host memory or on the device.

    Args:
        max_pixels: encoded pictures with more are refused before they are decoded.
        decoder: of JPEG on the device; None: everything is decoded on the CPU.
        takes: whether a picture of (height, width) may be on the device.
    """

    def __init__(
        self, max_pixels: int, decoder: DeviceDecoder | None, takes: Callable[[tuple[int, int]], bool]
    ) -> None:
        self._max_pixels, self._decoder, self._takes = max_pixels, decoder, takes
        self._threads = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="lidcam-decode")

    def read(self, pictures: Sequence[Any]) -> list[Any]:
        """Read files, and decode on the CPU what is not for the device. Several threads may call.

        Returns:
            per picture an array in host memory, `Encoded` for the device, or what was given if that is an array.

        Raises:
            ImageError: a picture cannot be read; the message is that of `lidcam_rt.image`, and says which.
            InputError: this reader is closed.
        """
        waiting: dict[int, Future[Any]] = {}
        results = list(pictures)
        try:
            for i, picture in enumerate(pictures):
                if is_encoded(picture):
                    waiting[i] = self._submit(_held(i, picture), self._decoder is not None)
            for i, future in waiting.items():
                results[i] = _result(i, future)
        finally:
            for future in waiting.values():
                future.cancel()
        return results

    def decode(self, pictures: Sequence[Any]) -> tuple[list[Any], frozenset[int]]:
        """Decode what `read` left for the device; what the device then rejects is decoded on the CPU.

        Returns:
            the pictures as arrays.
            Which of them the device decoded.

        Raises:
            ImageError: as `read`.
            BackendError: the decoder failed.
        """
        results: list[Any] = list(pictures)
        files = [i for i, picture in enumerate(pictures) if isinstance(picture, Encoded)]
        if not files or self._decoder is None:
            return results, frozenset()
        decoded = dict(zip(files, self._decoder([pictures[i] for i in files]), strict=True))
        others = {i: self._submit(pictures[i], False) for i in files if decoded[i] is None}
        for i in files:
            results[i] = _result(i, others[i]) if i in others else decoded[i]
        return results, frozenset(files) - set(others)

    def close(self) -> None:
        """End the threads, once they have finished decoding."""
        self._threads.shutdown()
        if self._decoder is not None:
            self._decoder.close()

    def _submit(self, picture: Any, device: bool) -> Future[Any]:
        try:
            return self._threads.submit(self._open, picture, device)
        except RuntimeError:
            raise InputError("this localizer is closed; open the artifact again") from None

    def _open(self, picture: Any, device: bool) -> Encoded | RgbImage:
        name = describe(picture)
        data = as_file(picture, name) if device else None
        if data is not None:
            size = plain_jpeg(data, self._max_pixels)
            if size is not None and self._takes(size):
                return Encoded(data, name, size)
            picture = Encoded(data, name)
        return read_image(picture, max_pixels=self._max_pixels)


def is_encoded(picture: Any) -> bool:
    """Whether a picture is a path, the bytes of a file, an open file or a Pillow image, which the reader decodes."""
    from PIL import Image

    given = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    return isinstance(picture, given) or callable(getattr(picture, "read", None))


def _held(number: int, picture: Any) -> Any:
    """The picture; an open file is read by the caller's thread, since a batch may contain it twice."""
    if isinstance(picture, (str, os.PathLike, bytes)) or not callable(getattr(picture, "read", None)):
        return picture
    name = describe(picture)
    try:
        return Encoded(as_file(picture, name) or b"", name)
    except InputError as error:
        raise type(error)(f"pictures[{number}]: {error}") from error


def _result(number: int, future: Future[Any]) -> Any:
    try:
        return future.result()
    except InputError as error:
        raise type(error)(f"pictures[{number}]: {error}") from error


def _fits(image: Any, picture: Encoded) -> bool:
    """Whether a decoder returned what the header promised, without gaps between rows."""
    try:
        view = image.__cuda_array_interface__
    except Exception:  # None, or in host memory
        return False
    height, width = picture.size or (0, 0)
    dense = view.get("strides") in (None, (3 * width, 3, 1))
    return bool(tuple(view["shape"]) == (height, width, 3) and view["typestr"] == "|u1" and dense)


def _sample() -> Encoded:
    """A JPEG of 16x16 pixels."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 100, 50)).save(file, "JPEG")
    return Encoded(file.getvalue(), "a sample", (16, 16))
