"""The kernels' times against their floor, against PyTorch and against CuPy; contenders take turns, sample by sample."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu.device import Sampler, TorchCuda
from benchmarks.gpu.peers import cupy_pas, torch_pas_histc, torch_pas_kthvalue
from benchmarks.gpu.report import Cannot, Wrong
from lidcam_rt.text import cut

__all__ = ["interleave", "measure_ceilings", "time_boxes", "time_pas"]

PERCENTILE, THETA = 98.0, 0.35


def interleave(samplers: dict[str, Sampler], rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds per call of each contender: median, 10th and 90th percentile, and how many samples."""
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sampler in samplers.items():
            samples[name].append(sampler())
    return {
        name: {
            "median": round(statistics.median(values), 3),
            "p10": round(float(np.percentile(values, 10)), 3),
            "p90": round(float(np.percentile(values, 90)), 3),
            "samples": len(values),
        }
        for name, values in samples.items()
    }


def measure_ceilings(device: TorchCuda, data: dict[str, Any], *, megabytes: int = 1024, rounds: int = 20) -> None:
    """Bandwidth of a copy and of a fill, and what launching the smallest kernels costs.

    `bytes_per_us` is the larger of the two bandwidths and `launch_us` the time per smallest kernel in a graph: these
    two make the floor.
    """
    torch = device.torch
    n = megabytes << 20
    source = device.put(np.random.default_rng(0).integers(0, 256, n, dtype=np.uint8))
    target = device.poisoned((n,), "uint8")
    tiny = device.poisoned((1,), "float32")
    found = interleave(
        {
            "copy": device.sampler(lambda i: target.copy_(source), 3, graph=False),
            "fill": device.sampler(lambda i: target.fill_(i & 255), 3, graph=False),
            "launch in a graph": device.sampler(lambda i: tiny.fill_(1.0), 200, graph=True),
            "launch by PyTorch": device.sampler(lambda i: tiny.fill_(1.0), 200, graph=False),
        },
        rounds,
    )
    copy, fill = 2 * n / found["copy"]["median"], n / found["fill"]["median"]
    data |= {
        "microseconds": found,
        "copy_gb_per_s": round(copy / 1e3, 1),
        "fill_gb_per_s": round(fill / 1e3, 1),
        "bytes_per_us": max(copy, fill),
        "launch_us": found["launch in a graph"]["median"],
    }
    if not torch.equal(source[:1024], source[:1024].clone()):
        raise Wrong("memory does not keep what is written")


def _maps(rng: np.random.Generator, batch: int, side: int) -> np.ndarray:
    """Smooth maps float32 [batch, 1, side, side], as networks make them."""
    noise = rng.gamma(0.7, 1.0, (batch, 1, side, side))
    for axis in (2, 3):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)
    return noise.astype(np.float32)


def _close(device: TorchCuda, ours: list[Any], theirs: Any) -> float:
    """Share of mask pixels on which a peer differs (another resize, other rounding)."""
    mask = theirs[1]
    other = device.get(mask) if hasattr(mask, "cpu") else mask.get()
    return float((device.get(ours[1]).astype(bool) != other.astype(bool)).mean())


def _add(samplers: dict[str, Sampler], notes: dict[str, str], name: str, make: Callable[[], Sampler]) -> None:
    """Prepare a contender; one that cannot run is noted, and the others continue."""
    try:
        samplers[name] = make()
    except Exception as error:
        notes[name] = f"{type(error).__name__}: {cut(str(error).strip(), 200)}"


def _ready(kernels: Any, ceilings: dict[str, Any]) -> None:
    if not kernels.available():
        raise Cannot(kernels.reason())
    if not ceilings.get("bytes_per_us"):
        raise Cannot("the floor was not measured")


def time_pas(
    device: TorchCuda,
    data: dict[str, Any],
    ceilings: dict[str, Any],
    *,
    shapes: Any = None,
    rounds: int = 30,
    inner: int = 20,
    compiled: bool = True,
) -> None:
    """PaS, and PaS with boxes, per batch.

    Raises:
        Cannot: there are no kernels, or no floor to compare with.
    """
    from lidcam_gpu import kernels
    from lidcam_rt.pas import PasOptions

    _ready(kernels, ceilings)
    torch, rng = device.torch, np.random.default_rng(7)
    few = max(1, inner // 4)  # peers take longer
    rows = []
    for batch, small, side in shapes or [(1, 24, 384), (8, 24, 384), (32, 24, 384), (128, 24, 384), (1, 7, 224),
                                         (32, 7, 224), (1, 16, 512), (32, 16, 512)]:  # fmt: skip
        moved = batch * (small * small * 4 + side * side * 2 + 4)
        sets = int(np.clip(2 * device.l2_bytes // moved + 1, 1, 64))  # used in rotation, so no cache holds them all
        cams = [device.put(_maps(rng, batch, small)) for _ in range(sets)]
        outs = [
            [device.poisoned((batch, 1, side, side), "uint8"), device.poisoned((batch, 1, side, side), "uint8"),
             device.poisoned((batch, 1), "float32")] for _ in range(sets)
        ]  # fmt: skip
        found_boxes = device.poisoned((batch, 1, 4), "int32")
        views = [(device.view(c), tuple(device.view(o) for o in out)) for c, out in zip(cams, outs, strict=True)]
        box_view = device.view(found_boxes)

        def ours(i: int, views: Any = views) -> None:
            cam, out = views[i % len(views)]
            kernels.pas(cam, out, PasOptions(PERCENTILE, THETA), stream=device.stream())

        def with_boxes(i: int, views: Any = views, box_view: Any = box_view, ours: Any = ours) -> None:
            ours(i)
            kernels.largest_boxes(views[i % len(views)][1][1], box_view, stream=device.stream())

        def peer(function: Any, cams: Any = cams, side: int = side) -> Callable[[int], Any]:
            return lambda i: function(torch, cams[i % len(cams)], (side, side), PERCENTILE, THETA)

        samplers: dict[str, Sampler] = {}
        notes: dict[str, str] = {}
        _add(samplers, notes, "ours, graph", lambda ours=ours: device.sampler(ours, inner, graph=True))
        _add(samplers, notes, "ours, launched", lambda ours=ours: device.sampler(ours, inner, graph=False))
        _add(samplers, notes, "ours with boxes, graph",
             lambda f=with_boxes: device.sampler(f, inner, graph=True))  # fmt: skip
        for name, call, graph in (
            ("PyTorch kthvalue, graph", peer(torch_pas_kthvalue), True),
            ("PyTorch kthvalue, launched", peer(torch_pas_kthvalue), False),
            ("PyTorch histc, launched", peer(torch_pas_histc), False),
        ):
            _add(samplers, notes, name, lambda call=call, graph=graph: device.sampler(call, few, graph=graph))
        if compiled and not device.rehearsal and (batch, side) in ((1, 384), (32, 384)):  # half a minute each
            fast = torch.compile(
                lambda cam, side=side: torch_pas_kthvalue(torch, cam, (side, side), PERCENTILE, THETA), dynamic=False
            )
            _add(samplers, notes, "PyTorch compiled, launched", lambda fast=fast, cams=cams: device.sampler(
                lambda i: fast(cams[i % len(cams)]), few, graph=False))  # fmt: skip
        try:
            run = cupy_pas(PERCENTILE, THETA, (small, small), (side, side))
            _add(samplers, notes, "CuPy, launched",
                 lambda run=run, cams=cams: _cupy_sampler(device, run, cams, few))  # fmt: skip
        except Cannot as error:
            notes["CuPy, launched"] = str(error)
        times = interleave(samplers, rounds)
        device.sync()
        ours(0)
        device.sync()
        row: dict[str, Any] = {
            "batch": batch, "from": small, "to": side, "bytes": moved, "buffer sets": sets,
            "floor_us": round(moved / ceilings["bytes_per_us"] + ceilings["launch_us"], 3),
            "microseconds": times, "could not run": notes,
            "mask pixels other than PyTorch's": _close(
                device, outs[0], torch_pas_kthvalue(torch, cams[0], (side, side), PERCENTILE, THETA)
            ),
        }  # fmt: skip
        if "ours, graph" in times:
            row["over the floor"] = round(times["ours, graph"]["median"] / row["floor_us"], 2)
        rows.append(row)
        best = min((v["median"] for n, v in times.items() if not n.startswith("ours")), default=float("nan"))
        print(f"   {batch:>4} x {small}->{side}: floor {row['floor_us']:.1f} us, "
              + ", ".join(f"{n} {v['median']:.1f}" for n, v in times.items() if n.startswith("ours"))
              + f", best peer {best:.1f}", flush=True)  # fmt: skip
    data["rows"] = rows
    failed = {name: why for row in rows for name, why in row["could not run"].items() if name.startswith("ours")}
    if failed:
        raise Wrong(f"our kernels could not be timed: {failed}")
    if any(row["mask pixels other than PyTorch's"] > 1e-3 for row in rows):
        raise Wrong("masks are not PyTorch's: more than one pixel in a thousand differs")


def _cupy_sampler(device: TorchCuda, run: Any, cams: Any, inner: int) -> Sampler:
    import cupy

    stream = cupy.cuda.ExternalStream(device.stream().cuda_stream)
    arrays = [cupy.asarray(cam) for cam in cams]

    def call(i: int) -> None:
        with stream:
            run(arrays[i % len(arrays)])

    return device.sampler(call, inner, graph=False)


def time_boxes(
    device: TorchCuda, data: dict[str, Any], ceilings: dict[str, Any], *, shapes: Any = None, rounds: int = 30,
    inner: int = 20,
) -> None:  # fmt: skip
    """The largest box per batch, on blobs and on noise.

    Raises:
        Cannot: there are no kernels, or no floor to compare with.
    """
    from lidcam_gpu import kernels

    _ready(kernels, ceilings)
    rng = np.random.default_rng(8)
    rows = []
    for batch, side in shapes or [(1, 384), (32, 384), (128, 384), (32, 224), (1, 1024)]:
        smooth = _maps(rng, batch, 24)[:, 0].repeat(-(-side // 24), 1).repeat(-(-side // 24), 2)[:, :side, :side]
        for kind, masks in (("blobs", smooth > np.percentile(smooth, 70)), ("noise", rng.random(smooth.shape) < 0.5)):
            mask = device.put(masks.astype(np.uint8))
            out = device.poisoned((batch, 4), "int32")
            views = device.view(mask), device.view(out)

            def ours(i: int, views: Any = views) -> None:
                kernels.largest_boxes(*views, stream=device.stream())

            samplers: dict[str, Sampler] = {}
            notes: dict[str, str] = {}
            for graph in (True, False):
                _add(samplers, notes, f"ours, {'graph' if graph else 'launched'}",
                     lambda graph=graph, ours=ours: device.sampler(ours, inner, graph=graph))  # fmt: skip
            times = interleave(samplers, rounds)
            floor = masks.size / ceilings["bytes_per_us"] + ceilings["launch_us"]
            rows.append({"batch": batch, "side": side, "masks": kind, "floor_us": round(floor, 3),
                         "microseconds": times, "could not run": notes})  # fmt: skip
            print(f"   {batch:>4} x {side} {kind}: floor {floor:.1f} us, "
                  + ", ".join(f"{n} {v['median']:.1f}" for n, v in times.items()), flush=True)  # fmt: skip
    data["rows"] = rows
    if not any(row["microseconds"] for row in rows):
        raise Wrong(f"our kernels could not be timed: {rows[0]['could not run']}")
