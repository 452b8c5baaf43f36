"""The CUDA kernels on arrays that are already on the device: PaS, the largest box, the dense CRF.

Takes anything that offers `__cuda_array_interface__` or DLPack (PyTorch tensors, CuPy arrays, pycuda GPUArrays, Numba),
on the caller's stream and in the caller's context. Importing this module touches no driver; the first query of a
device loads libcuda. These kernels return the same bits as `lidcam_rt.pas.pas` and the same boxes as `lidcam_rt.boxes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lidcam_gpu.arrays import Call, need_device
from lidcam_gpu.plan import check_sides, plan_mean_field
from lidcam_rt.backends.gpu_turns import GPU_TURNS
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
    "boxes_workspace",
    "compiled",
    "devices",
    "largest_boxes",
    "mean_field",
    "mean_field_workspace",
    "pas",
    "pas_ahead_of_time",
    "reason",
    "warm_up",
]

_DEFAULTS = PasOptions()


@dataclass(frozen=True)
class Device:
    """A CUDA device.

    Attributes:
        ordinal: its number for the driver.
        name: as the driver reports it.
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


def compiled() -> bool:
    """Whether this build contains CUDA kernels (nvcc was there when it was built)."""
    from lidcam_rt._kernels import cuda

    return bool(cuda.compiled())


def available() -> bool:
    """Whether this build contains kernels and a device answers."""
    from lidcam_rt._kernels import cuda

    return bool(cuda.available())


def reason() -> str:
    """Why `available` is False; empty when it is True."""
    from lidcam_rt._kernels import cuda

    return str(cuda.reason())


def architectures() -> tuple[str, ...]:
    """What the kernels were compiled for, such as ("sm_75", ..., "compute_120")."""
    from lidcam_rt._kernels import cuda

    return tuple(cuda.architectures().split())


def devices() -> tuple[Device, ...]:
    """The devices that the driver offers.

    Raises:
        BackendError: CUDA cannot be used here.
    """
    from lidcam_rt._kernels import cuda

    with GPU_TURNS.shared():
        need_device()
        return tuple(Device(**entry) for entry in cuda.devices())


def pas_ahead_of_time(major: int) -> tuple[bytes, int]:
    """The PaS kernel `lidcam_pas_aot` as PTX, for engines that bake a kernel in (TensorRT's ahead-of-time plugins).

    Args:
        major: compute capability of the device, before the point.

    Returns:
        The PTX, and the number of blocks that share a map: the grid is that times the number of maps. The arguments
        are listed in kernels/pas/pas_aot.cu.

    Raises:
        BackendError: this build contains no kernels.
    """
    from lidcam_rt._kernels import cuda

    if not compiled():
        raise BackendError(f"there is no PTX: {reason()}; install nvcc and build lidcam-rt again")
    ptx, blocks = cuda.pas_ahead_of_time(int(major))
    return ptx, int(blocks)


def warm_up(array: Any = None, *, stream: Any = None) -> None:
    """Load all kernels into the context that calls with this array and stream use.

    Otherwise the first launch of each kernel loads it, which ends the capture of a CUDA graph.

    Args:
        array: an array on the device; None: the current context is meant, or that of the stream.
        stream: see `pas`.

    Raises:
        InputError: it is not an array, or not on a device.
        BackendError: CUDA cannot be used, or the kernels cannot be loaded.
    """
    from lidcam_rt._kernels import cuda

    call = Call(stream)
    address = 0 if array is None else call.take(array, "array", None).address
    call.run(lambda handle: cuda.warm_up(handle, address))


def boxes_workspace(count: int, size: tuple[int, int]) -> int:
    """Bytes of a workspace with which the boxes of `count` masks of `size` (H, W) allocate no device memory.

    Raises:
        InputError: a number is out of its range.
    """
    from lidcam_rt._kernels import cuda

    check_sides(*size)
    try:
        return int(cuda.boxes_workspace(count, *size))
    except (TypeError, ValueError) as error:
        raise InputError(f"count must be a number of masks, got {count!r}") from error


def _offered(call: Call, workspace: Any) -> tuple[int, int]:
    """Address and bytes of a workspace, or zeros."""
    if workspace is None:
        return 0, 0
    view = call.take(workspace, "workspace", ("|u1", "|i1"), output=True)
    return view.address, view.nbytes


@GPU_TURNS.shared()
def pas(cam: Any, out: tuple[Any, Any, Any], options: PasOptions = _DEFAULTS, *, stream: Any = None) -> None:
    """Percentile as a standard on the device: one launch, no workspace; returns before it has run.

    Args:
        cam: activation maps, float32 [N, K, h, w] on a device.
        out: where the results go: map uint8 [N, K, H, W], mask bool or uint8 [N, K, H, W], threshold float32 [N, K].
            Their shape gives the output size.
        options: see `PasOptions`.
        stream: a stream of PyTorch, CuPy, pycuda or cuda-python, or its handle as an int. It waits for the streams
            that the arrays name. None: the stream that `cam` names, else the default stream.

    Raises:
        InputError: an array is wrong, arrays are on several devices, or options is not a `PasOptions`.
        BackendError: CUDA cannot be used, or the launch failed.
    """
    from lidcam_rt._kernels import cuda

    if not isinstance(options, PasOptions):
        raise InputError(f"options must be PasOptions, got {type(options).__name__}")
    call = Call(stream)
    maps = call.take(cam, "cam", ("<f4",), rank=4)
    map8 = call.take(out[0], "out[0], the map,", ("|u1",), rank=4, output=True)
    size = map8.shape[2:]
    mask = call.take(out[1], "out[1], the mask,", ("|b1", "|u1"), (*maps.shape[:2], *size), output=True)
    threshold = call.take(out[2], "out[2], the threshold,", ("<f4",), maps.shape[:2], output=True)
    if map8.shape[:2] != maps.shape[:2]:
        raise InputError(f"out[0], the map, must have shape {(*maps.shape[:2], 'H', 'W')}, got {map8.shape}")
    check_sides(*maps.shape[2:], *size)
    call.run(
        cuda.pas,
        maps.address,
        math.prod(maps.shape[:2]),
        *maps.shape[2:],
        *size,
        *options.kernel_arguments(),
        map8.address,
        mask.address,
        threshold.address,
    )


@GPU_TURNS.shared()
def largest_boxes(mask: Any, out: Any, *, by: str = "contour", workspace: Any = None, stream: Any = None) -> None:
    """The box of the largest component of each mask, as `lidcam_rt.boxes.largest_box`; returns before it has run.

    Args:
        mask: bool or uint8 [..., H, W] on a device, nonzero is foreground.
        out: int32 [..., 4]: x0, y0, x1, y1, the last two excluded; four times -1 for an empty mask.
        by: `contour` or `pixels`.
        workspace: uint8 [bytes] on the device; if it has `boxes_workspace` bytes, no memory is allocated.
        stream: see `pas`.

    Raises:
        InputError: an array or option is wrong.
        BackendError: CUDA cannot be used, or the launch failed.
    """
    from lidcam_rt._kernels import cuda

    by_pixels, call = _by_pixels(by), Call(stream)
    masks = call.take(mask, "mask", ("|b1", "|u1"))
    if len(masks.shape) < 2:
        raise InputError(f"mask must have at least 2 dimensions, got shape {masks.shape}")
    boxes = call.take(out, "out", ("<i4",), (*masks.shape[:-2], 4), output=True)
    check_sides(*masks.shape[-2:])
    call.run(
        cuda.boxes,
        masks.address,
        math.prod(masks.shape[:-2]),
        *masks.shape[-2:],
        by_pixels,
        boxes.address,
        *_offered(call, workspace),
    )


@GPU_TURNS.shared()
def mean_field(
    image: Any,
    unary: Any,
    out: tuple[Any, Any],
    *,
    options: CrfOptions | str = "psa",
    labels: Sequence[int] | Sequence[Sequence[int]] | None = None,
    vertices_per_pixel: float = 2.0,
    workspace: Any = None,
    stream: Any = None,
) -> None:
    """A dense CRF on the device, as `lidcam_rt.crf.DenseCRF.infer` for a batch; returns before it has run.

    Supports every option of `CrfOptions`, with at most 4 terms. The lattices are built on the device. Sums over pixels
    are sums of integers, whatever `options.rounding` says: the same bits in every run. Compared with the CPU's result
    with `rounding="fast"`, a probability differs by about 1e-6, and by up to 3e-5 where two labels are nearly tied.

    Args:
        image: uint8 [N, H, W, 3] RGB on a device.
        unary: float32 [N, L, H, W] on the device, negative log probabilities, L >= 2, all finite.
        out: where the results go: probabilities float32 [N, L, H, W], and a status int32 [N]: 0, or 1 for an image
            whose lattice has more vertices than there is room for; its probabilities are then not written.
        options: `CrfOptions` or a preset's name. Arrays as compat are for all L labels. With a tolerance, each image
            stops on its own, with the result of that many iterations.
        labels: the labels present in all images, or one sequence of them per image, at least 2 each; the others get
            probability 0, take no time, and their energies are not read. None: all.
        vertices_per_pixel: room for the lattices; 6, the maximum, is enough for any image. Photos need less than one.
        workspace: uint8 [bytes] on the device; if it has `mean_field_workspace` bytes, no memory is allocated.
        stream: see `pas`.

    Raises:
        InputError: an array or option is wrong.
        BackendError: CUDA cannot be used, or the launch failed.
    """
    from lidcam_rt._kernels import cuda

    call = Call(stream)
    energies = call.take(unary, "unary", ("<f4",), rank=4)
    count, total, height, width = energies.shape
    terms, capacity, present, o = plan_mean_field(energies.shape, options, labels, vertices_per_pixel)
    pixels = call.take(image, "image", ("|u1",), (count, height, width, 3))
    q = call.take(out[0], "out[0], the probabilities,", ("<f4",), energies.shape, output=True)
    status = call.take(out[1], "out[1], the status,", ("<i4",), (count,), output=True)
    call.run(
        cuda.mean_field,
        pixels.address,
        energies.address,
        count,
        total,
        height,
        width,
        terms,
        o.iterations,
        q.address,
        status.address,
        capacity,
        o.tolerance,
        present,
        *_offered(call, workspace),
    )


def mean_field_workspace(
    shape: tuple[int, int, int, int],
    options: CrfOptions | str = "psa",
    labels: Sequence[int] | Sequence[Sequence[int]] | None = None,
    vertices_per_pixel: float = 2.0,
) -> int:
    """Bytes of a workspace with which `mean_field` allocates no device memory.

    Args:
        shape: of `unary`.
        options: as in `mean_field`.
        labels: as in `mean_field`.
        vertices_per_pixel: as in `mean_field`.

    Raises:
        InputError: an option is wrong.
    """
    from lidcam_rt._kernels import cuda

    terms, capacity, present, o = plan_mean_field(shape, options, labels, vertices_per_pixel)
    try:
        return int(cuda.crf_workspace(*shape, terms, capacity, o.tolerance, present))
    except ValueError as error:
        raise InputError(str(error)) from error


@GPU_TURNS.shared()
def boxes_at_size(
    map8: Any,
    level: Any,
    size: tuple[int, int],
    out: Any,
    *,
    by: str = "contour",
    workspace: Any = None,
    stream: Any = None,
) -> None:
    """The box at the size of the original picture, without a map of that size in memory.

    Args:
        map8: uint8 [N, h, w] on a device: localization maps, each resized bilinearly to `size`, as cv2.resize does.
        level: float32 [N] on the device: the mask is where the resized map is above it.
        size: (H, W) of the picture in pixels, the same for all.
        out: int32 [N, 4], as for `largest_boxes`.
        by: `contour` or `pixels`.
        workspace: as for `largest_boxes`, of `boxes_workspace(N, size)` bytes.
        stream: see `pas`.

    Raises:
        InputError: an array or option is wrong.
        BackendError: CUDA cannot be used, or the launch failed.
    """
    from lidcam_rt._kernels import cuda

    by_pixels, call = _by_pixels(by), Call(stream)
    maps = call.take(map8, "map8", ("|u1",), rank=3)
    levels = call.take(level, "level", ("<f4",), maps.shape[:1])
    boxes = call.take(out, "out", ("<i4",), (maps.shape[0], 4), output=True)
    check_sides(*maps.shape[1:], *size)
    call.run(
        cuda.boxes_at_size,
        maps.address,
        levels.address,
        maps.shape[0],
        *maps.shape[1:],
        int(size[0]),
        int(size[1]),
        by_pixels,
        boxes.address,
        *_offered(call, workspace),
    )
