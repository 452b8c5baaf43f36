"""A stand-in for `nvidia.nvimgcodec`: the calls of its version 0.9 that lidcam_gpu makes, by Pillow in host memory.

Its images say that they are on the device, as `tensorrt_standin.Cuda`'s memory does.
"""

from __future__ import annotations

import enum
import io
import types

import numpy as np
from PIL import Image as PilImage


class Image:
    """A decoded picture, on a stream; its pixels are wrong until `finish` has run.

    Attributes:
        shape: height, width, 3.
    """

    def __init__(self, pixels, stream, late):
        self._right, self._stream = pixels, stream
        self.pixels = np.full_like(pixels, 255 if late else 0)
        self.shape = pixels.shape
        if not late:
            self.finish()

    def finish(self):
        """What the decoder enqueued has run."""
        self.pixels[...] = self._right

    def cpu(self):
        """In host memory."""
        return self.pixels

    @property
    def __cuda_array_interface__(self):
        return {**self.pixels.__array_interface__, "strides": None, "version": 3, "stream": self._stream}


def module() -> types.ModuleType:
    """A stand-in whose attribute `log` has what was asked of it, and what it is to do.

    `log.decoders`: options of each decoder that is open. `log.batches`: sizes and stream of each call. `log.refuse`:
    tells by the bytes which files are not decoded. `log.stream`: the stream of the images in place of the caller's, on
    which they are late. `log.images`: those. `log.change` is added to the pixels. `log.fail`: raised by what it names.
    `log.before` is called before each decoding.
    """
    api = types.ModuleType("nvidia.nvimgcodec")
    log = api.log = types.SimpleNamespace(
        decoders=[], batches=[], refuse=lambda data: False, stream=None, images=[], change=0, fail={}, before=None
    )
    kinds = ["CPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU", "HW_GPU_ONLY"]
    api.BackendKind = enum.Enum("BackendKind", kinds)
    api.NVIMGCODEC_DEVICE_CPU_ONLY = -99999
    api.ColorSpec = enum.Enum("ColorSpec", ["SRGB", "GRAY", "UNCHANGED"])

    class Backend:
        def __init__(self, backend_kind, load_hint=1.0):
            self.backend_kind = backend_kind

    class DecodeParams:
        def __init__(self, apply_exif_orientation=True, color_spec=api.ColorSpec.SRGB, allow_any_depth=False):
            self.apply_exif_orientation, self.color_spec = apply_exif_orientation, color_spec

    class CodeStream:
        def __init__(self, data):
            assert isinstance(data, bytes)
            self.data = data

    class Decoder:
        def __init__(self, device_id=-1, max_num_cpu_threads=0, backends=None, options=""):
            if "open" in log.fail:
                raise log.fail["open"]
            log.decoders.append((device_id, [b.backend_kind.name for b in backends], options))
            self.entry = log.decoders[-1]

        def __del__(self):
            if hasattr(self, "entry"):
                log.decoders.remove(self.entry)

        def decode(self, srcs, *, images=None, params=None, cuda_stream=0):
            if "decode" in log.fail:
                raise log.fail["decode"]
            assert not params.apply_exif_orientation and params.color_spec is api.ColorSpec.SRGB
            if log.before is not None:
                log.before()
            found = [None if log.refuse(src.data) else self._one(src.data, cuda_stream) for src in srcs]
            log.batches.append(([image and image.shape[:2] for image in found], cuda_stream))
            log.images += [image for image in found if image is not None]
            return found

        def _one(self, data, stream):
            with PilImage.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image.convert("RGB")).astype(int) + log.change
            late = log.stream is not None
            return Image(pixels.clip(0, 255).astype(np.uint8), log.stream if late else stream, late)

    for kind in (Backend, DecodeParams, CodeStream, Decoder, Image):
        setattr(api, kind.__name__, kind)
    return api
