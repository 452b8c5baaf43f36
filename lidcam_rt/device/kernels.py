"""The CUDA kernels on arrays that are already on the device: PaS, the largest box, the dense CRF.

Takes anything that offers `__cuda_array_interface__` or DLPack (PyTorch tensors, CuPy arrays, pycuda GPUArrays, Numba),
on the caller's stream and in the caller's context. Importing this module touches no driver; the first question about a
device loads libcuda. These kernels give the same bits as `lidcam_rt.pas.pas` and the same boxes as `lidcam_rt.boxes`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lidcam_rt.boxes import _by_pixels
from lidcam_rt.errors import BackendError, InputError
from lidcam_rt.pas.options import PasOptions

if TYPE_CHECKING:
    from lidcam_rt.crf.options import CrfOptions

__all__ = [
    "Device",
    "architectures",
    "available",
    "boxes_at_size",
    "compiled",
    "devices",
    "largest_boxes",
    "mean_field",
    "pas",
    "pas_ahead_of_time",
    "reason",
]

_DEFAULTS = PasOptions()
_MAX_SIDE = 32768
_MAX_TERMS = 4


@dataclass(frozen=True)
class Device:
    """A CUDA device.

    Attributes:
        ordinal: its number for the driver.
        name: as the driver gives it.
        major: compute capability, before the point.
        minor: compute capability, after the point.
        processors: number of multiprocessors.
        shared_limit: bytes of shared memory that a block may have.
    """

    ordinal: int
    name: str
    major: int
    minor: int
    processors: int
    shared_limit: int


@dataclass(frozen=True)
class _View:
    """A dense array on the device: address, shape, type as `<f4`, and the stream its maker used, if it says."""

    address: int
    shape: tuple[int, ...]
    kind: str
    stream: int | None


def compiled() -> bool:
    """Whether this build holds CUDA kernels (nvcc was there when it was built)."""
    from lidcam_rt._kernels import cuda

    return bool(cuda.compiled())


def available() -> bool:
    """Whether this build holds kernels and a device answers."""
    from lidcam_rt._kernels import cuda

    return bool(cuda.available())


def reason() -> str:
    """Why `available` is False; empty when it is True."""
    from lidcam_rt._kernels import cuda

    return str(cuda.reason())


def architectures() -> tuple[str, ...]:
    """What the kernels were compiled for, as ("sm_75", ..., "compute_120")."""
    from lidcam_rt._kernels import cuda

    return tuple(cuda.architectures().split())


def devices() -> tuple[Device, ...]:
    """The devices that the driver offers.

    Raises:
        BackendError: CUDA cannot be used here.
    """
    from lidcam_rt._kernels import cuda

    _need()
    return tuple(Device(**entry) for entry in cuda.devices())


def pas_ahead_of_time(major: int) -> tuple[bytes, int]:
    """The PaS kernel `lidcam_pas_aot` as PTX, for engines that bake a kernel in (TensorRT's ahead-of-time plugins).

    Args:
        major: compute capability of the device, before the point.

    Returns:
        The PTX, and the number of blocks that share a map: the grid is that times the number of maps. The arguments
        are listed in kernels/pas/pas_aot.cu.

    Raises:
        BackendError: this build holds no kernels.
    """
    from lidcam_rt._kernels import cuda

    if not compiled():
        raise BackendError(f"there is no PTX: {reason()}; install nvcc and build lidcam-rt again")
    ptx, blocks = cuda.pas_ahead_of_time(int(major))
    return ptx, int(blocks)


def _need() -> None:
    if not available():
        raise BackendError(f"CUDA cannot be used: {reason()}")


def _look(array: Any, name: str) -> _View:
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is not None:
        shape, kind = tuple(interface["shape"]), str(interface["typestr"])
        strides, expected = interface.get("strides"), int(kind[2:])
        for side, step in zip(reversed(shape), reversed(strides or ()), strict=False):
            if side > 1 and step != expected:
                raise InputError(f"{name} must be dense in C order, its strides are {strides}")
            expected *= side
        return _View(int(interface["data"][0] or 0), shape, kind, interface.get("stream"))
    if hasattr(array, "__dlpack__"):
        from lidcam_rt._kernels import cuda

        address, shape, code, bits, on_device, dense = cuda.look(array)
        if not on_device:
            raise InputError(f"{name} must be on a CUDA device; for arrays in host memory use lidcam_rt.pas")
        if not dense:
            raise InputError(f"{name} must be dense in C order")
        letter = {0: "i", 1: "u", 2: "f", 6: "b"}.get(code, "?")
        return _View(address, tuple(shape), f"{'|' if bits == 8 else '<'}{letter}{bits // 8}", None)
    raise InputError(
        f"{name} must be a CUDA array (__cuda_array_interface__ or __dlpack__), got {type(array).__name__}"
    )


def _checked(array: Any, name: str, kinds: tuple[str, ...], shape: tuple[int, ...] | None, rank: int = 0) -> _View:
    view = _look(array, name)
    if view.kind not in kinds:
        raise InputError(f"{name} must have the type {' or '.join(kinds)}, got {view.kind}")
    if shape is not None and view.shape != shape:
        raise InputError(f"{name} must have shape {shape}, got {view.shape}")
    if shape is None and len(view.shape) != rank:
        raise InputError(f"{name} must have {rank} dimensions, got shape {view.shape}")
    return view


def _sides(*sides: int) -> None:
    if min(sides) < 1 or max(sides) > _MAX_SIDE:
        raise InputError(f"height and width must be 1 to {_MAX_SIDE} pixels, got {sides}")


def _handle(stream: Any, view: _View) -> int:
    """The CUstream of an int or of an object of PyTorch, CuPy, pycuda or cuda-python; of the array where None."""
    if stream is None:
        return view.stream or 0
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        return int((protocol() if callable(protocol) else protocol)[1])
    for name in ("cuda_stream", "ptr", "handle"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    return int(stream)


def _run(call: Any, *arguments: Any) -> None:
    from lidcam_rt._kernels import cuda

    try:
        call(*arguments)
    except cuda.Error as error:
        raise BackendError(str(error)) from error
    except ValueError as error:
        raise InputError(str(error)) from error


def pas(cam: Any, out: tuple[Any, Any, Any], options: PasOptions = _DEFAULTS, *, stream: Any = None) -> None:
    """Percentile as a standard on the device: one launch, no workspace; returns before it has run.

    Args:
        cam: activation maps, float32 [N, K, h, w] on a device.
        out: where the results go: map uint8 [N, K, H, W], mask bool or uint8 [N, K, H, W], threshold float32 [N, K].
            Their shape gives the output size.
        options: see `PasOptions`.
        stream: a stream of PyTorch, CuPy, pycuda or cuda-python, or its handle as an int. None: the stream that
            `cam` names, else the default stream.

    Raises:
        InputError: an array is wrong, or options are no `PasOptions`.
        BackendError: CUDA cannot be used, or the launch failed.
    """
    from lidcam_rt._kernels import cuda

    if not isinstance(options, PasOptions):
        raise InputError(f"options must be PasOptions, got {type(options).__name__}")
    maps = _checked(cam, "cam", ("<f4",), None, 4)
    map8 = _checked(out[0], "out[0], the map,", ("|u1",), None, 4)
    size = map8.shape[2:]
    mask = _checked(out[1], "out[1], the mask,", ("|b1", "|u1"), (*maps.shape[:2], *size))
    threshold = _checked(out[2], "out[2], the threshold,", ("<f4",), maps.shape[:2])
    if map8.shape[:2] != maps.shape[:2]:
        raise InputError(f"out[0], the map, must have shape {(*maps.shape[:2], 'H', 'W')}, got {map8.shape}")
    _sides(*maps.shape[2:], *size)
    _need()
    _run(
        cuda.pas, maps.address, math.prod(maps.shape[:2]), *maps.shape[2:], *size, *options.kernel_arguments(),
        map8.address, mask.address, threshold.address, _handle(stream, maps),
    )


def largest_boxes(mask: Any, out: Any, *, by: str = "contour", stream: Any = None) -> None:
    """The box of the largest component of each mask, as `lidcam_rt.boxes.largest_box`; returns before it has run.

    Args:
        mask: bool or uint8 [..., H, W] on a device, nonzero is foreground.
        out: int32 [..., 4]: x0, y0, x1, y1, the last two excluded; four times -1 for an empty mask.
        by: `contour` or `pixels`.
        stream: see `pas`.

    Raises:
        InputError: an array or option is wrong.
        BackendError: CUDA cannot be used, or the launch failed.
    """
    from lidcam_rt._kernels import cuda

    by_pixels = _by_pixels(by)
    masks = _look(mask, "mask")
    masks = _checked(mask, "mask", ("|b1", "|u1"), None, max(len(masks.shape), 2))
    boxes = _checked(out, "out", ("<i4",), (*masks.shape[:-2], 4))
    _sides(*masks.shape[-2:])
    _need()
    _run(
        cuda.boxes, masks.address, math.prod(masks.shape[:-2]), *masks.shape[-2:], by_pixels, boxes.address,
        _handle(stream, masks),
    )


def mean_field(
    image: Any,
    unary: Any,
    out: tuple[Any, Any],
    *,
    options: CrfOptions | str = "psa",
    labels: Sequence[int] | Sequence[Sequence[int]] | None = None,
    vertices_per_pixel: float = 2.0,
    stream: Any = None,
) -> None:
    """A dense CRF on the device, as `lidcam_rt.crf.DenseCRF.infer` for a batch; returns before it has run.

    Supports every option of `CrfOptions`, with at most 4 terms. The lattices are built on the device. Sums over pixels
    are sums of integers, whatever `options.rounding` says: the same bits in every run. Against the CPU's result with
    `rounding="fast"` a probability moves by about 1e-6, and by up to 3e-5 where two labels are nearly tied.

    Args:
        image: uint8 [N, H, W, 3] RGB on a device.
        unary: float32 [N, L, H, W] on the device, negative log probabilities, L >= 2, all finite.
        out: where the results go: probabilities float32 [N, L, H, W], and a status int32 [N]: 0, or 1 for an image
            whose lattice has more vertices than there is room for; its probabilities are then not written.
        options: `CrfOptions` or a preset's name. Arrays as compat are for all L labels. With a tolerance each image
            stops for itself, with the result of as many iterations.
        labels: the labels present in all images, or one sequence of them per image, at least 2 each; the others get
            probability 0, take no time, and their energies are not read. None: all.
        vertices_per_pixel: room for the lattices, up to 6, which serves every image. Photos need less than one.
        stream: see `pas`.

    Raises:
        InputError: an array or option is wrong.
        BackendError: CUDA cannot be used, or the launch failed.
    """
    from lidcam_rt._kernels import cuda
    from lidcam_rt.crf.options import preset

    o = preset(options)
    if not 0 < vertices_per_pixel <= 6:
        raise InputError(f"vertices_per_pixel must be above 0 and at most 6, got {vertices_per_pixel!r}")
    energies = _checked(unary, "unary", ("<f4",), None, 4)
    count, total, height, width = energies.shape
    if total < 2:
        raise InputError("a CRF needs at least 2 labels; give the background one of its own")
    pixels = _checked(image, "image", ("|u1",), (count, height, width, 3))
    q = _checked(out[0], "out[0], the probabilities,", ("<f4",), energies.shape)
    status = _checked(out[1], "out[1], the status,", ("<i4",), (count,))
    _sides(height, width)
    present = _present(labels, count, total)
    terms = o.kernel_terms(total)
    if not terms:
        raise InputError("the options leave out both pairwise terms: there is nothing to infer")
    if len(terms) > _MAX_TERMS:
        raise InputError(
            f"the dense CRF on CUDA takes at most {_MAX_TERMS} pairwise terms, the options have {len(terms)}: "
            "leave some out, or use lidcam_rt.crf.DenseCRF on the CPU"
        )
    _need()
    _run(
        cuda.mean_field, pixels.address, energies.address, count, total, height, width, terms, o.iterations,
        q.address, status.address, min(math.ceil(vertices_per_pixel * height * width) + 64, 2**30), o.tolerance,
        present, _handle(stream, energies),
    )


def _present(labels: Any, count: int, total: int) -> list[list[int]]:
    """The labels present, ascending: none (all), one list for all images, or one for each."""
    if labels is None:
        return []
    try:
        given = list(labels)
        one = all(isinstance(k, int | np.integer) for k in given)
        present = [[operator.index(k) for k in entry] for entry in ([given] if one else given)]
    except TypeError as error:
        raise InputError(f"labels holds the labels present, or one such list per image, got {labels!r}") from error
    if not one and len(present) != count:
        raise InputError(f"labels holds {len(present)} lists, there are {count} images: give one each, or one for all")
    for entry in present:
        if len(set(entry)) != len(entry) or not all(0 <= k < total for k in entry):
            raise InputError(f"labels must be distinct and lie in 0..{total - 1}, got {entry}")
        if len(entry) < 2:
            raise InputError(f"a CRF needs at least 2 labels present in each image, got {entry}")
    return [sorted(entry) for entry in present]


def boxes_at_size(
    map8: Any, level: Any, size: tuple[int, int], out: Any, *, by: str = "contour", stream: Any = None
) -> None:
    """The box at the size of the original picture, without a map of that size in memory.

    Args:
        map8: uint8 [N, h, w] on a device, localization maps; each is resized bilinearly to `size`, as cv2.resize does.
        level: float32 [N] on the device: the mask is where the resized map is above it.
        size: (H, W) of the picture in pixels, the same for all.
        out: int32 [N, 4], as for `largest_boxes`.
        by: `contour` or `pixels`.
        stream: see `pas`.

    Raises:
        InputError: an array or option is wrong.
        BackendError: CUDA cannot be used, or the launch failed.
    """
    from lidcam_rt._kernels import cuda

    by_pixels = _by_pixels(by)
    maps = _checked(map8, "map8", ("|u1",), None, 3)
    levels = _checked(level, "level", ("<f4",), maps.shape[:1])
    boxes = _checked(out, "out", ("<i4",), (maps.shape[0], 4))
    _sides(*maps.shape[1:], *size)
    _need()
    _run(
        cuda.boxes_at_size, maps.address, levels.address, maps.shape[0], *maps.shape[1:], int(size[0]), int(size[1]),
        by_pixels, boxes.address, _handle(stream, maps),
    )
