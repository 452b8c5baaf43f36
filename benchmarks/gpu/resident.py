"""From picture to box on the GPU: the resident pipeline against the same work with PyTorch, and with the CPU's steps.

Scope: pictures decoded, in host memory; transfers included; times are the host's, from the call until its results are
there. Contenders take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.crf import photos
from benchmarks.gpu.device import TorchCuda
from benchmarks.gpu.report import Cannot, Wrong
from lidcam_rt.text import cut

__all__ = ["SIZE", "check_resident", "figures", "in_turns"]

#: Pictures of these sizes (height, width), as photo collections have them.
SIZE = (375, 500)


def _torch_pipeline(torch: Any, manifest: Any, compiled: bool, half: bool) -> Callable[[list[Any]], Any]:
    """PyTorch's way: resize, network, CAM with NWC, PaS on the GPU; the box with OpenCV on the CPU."""
    import cv2
    import timm

    from benchmarks.gpu.peers import torch_pas_kthvalue

    model = timm.create_model("seresnet50", num_classes=1000).eval().cuda()
    mean, std = (torch.tensor(v, device="cuda").reshape(1, 3, 1, 1) for v in (manifest.input.mean, manifest.input.std))
    size = (manifest.input.height, manifest.input.width)
    weight = model.fc.weight.detach().clamp(min=0)

    def network(x: Any) -> Any:
        features = model.forward_features(x)
        logits = model.forward_head(features)
        top = logits.argmax(1)
        cam = torch.einsum("nc,nchw->nhw", weight[top].to(features.dtype), features)[:, None].float()
        map8, _, cut = torch_pas_kthvalue(torch, cam, size, 98.0, 0.35)
        return top, logits.softmax(1).amax(1), map8, cut

    network = torch.compile(network, dynamic=False) if compiled else network

    def run(pictures: list[Any]) -> list[Any]:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
            small = [
                torch.nn.functional.interpolate(
                    torch.from_numpy(p).cuda().permute(2, 0, 1)[None].float(), size, mode="bicubic", antialias=True
                )
                for p in pictures
            ]
            top, score, map8, cut = network((torch.cat(small) - mean) / std)
            top, score, map8, cut = (value.cpu().numpy() for value in (top, score, map8, cut))
        results = []
        for i, picture in enumerate(pictures):
            full = cv2.resize(map8[i, 0], picture.shape[1::-1])
            contours, _ = cv2.findContours(
                (full > cut[i, 0]).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
            )
            best = max(contours, key=cv2.contourArea, default=None)
            results.append((int(top[i]), float(score[i]), None if best is None else cv2.boundingRect(best)))
        return results

    return run


def figures(samples: list[float], batch: int) -> dict[str, float]:
    """Percentiles of the seconds that calls took, and pictures per second."""
    p50, p99 = (float(np.percentile(samples, q)) * 1e3 for q in (50, 99))
    return {"p50 ms": round(p50, 3), "p99 ms": round(p99, 3), "samples": len(samples),
            "images/s": round(batch / float(np.mean(samples)), 1)}  # fmt: skip


def check_resident(
    device: TorchCuda, data: dict[str, Any], artifact: Path, *, index: int = 0, batches: Any = (1, 8, 32),
    seconds: float = 1.5, compiled: bool = True,
) -> None:  # fmt: skip
    """Results against the CPU's, then latency and throughput.

    Raises:
        Cannot: a package is missing, or ONNX Runtime has no CUDA provider.
        Wrong: classes, maps or boxes are not those of the CPU.
    """
    if device.rehearsal:
        raise Cannot("the resident pipeline needs ONNX Runtime's CUDA provider")
    from lidcam_gpu.resident import ResidentLocalizer
    from lidcam_rt import load
    from lidcam_rt.artifact import read_manifest
    from lidcam_rt.errors import BackendError

    manifest = read_manifest(artifact)
    rng = np.random.default_rng(3)
    pictures = list(photos(rng, max(batches), *SIZE))
    contenders: dict[str, Callable[[list[Any]], Any]] = {}
    notes: dict[str, str] = {}
    opened: list[ResidentLocalizer] = []
    half = _half(artifact, notes)
    for name, path, options in (
        ("resident", artifact, {}), ("resident, graph", artifact, {"graph": True}),
        ("resident, psa", artifact, {"refine": "psa"}),
        ("resident, graph, psa", artifact, {"graph": True, "refine": "psa"}),
        ("resident fp16", half, {}), ("resident fp16, graph", half, {"graph": True}),
        ("resident fp16, graph, psa", half, {"graph": True, "refine": "psa"}),
    ):  # fmt: skip
        if path is None:
            continue
        try:
            one = ResidentLocalizer(path, device=f"cuda:{index}", max_batch=max(batches), **options)
            one(pictures[:1])
            one(pictures[:1])
        except BackendError as error:
            notes[name] = cut(str(error), 300)
            continue
        opened.append(one)
        contenders[name] = one
    if "resident" not in contenders:
        raise Cannot(notes["resident"])
    data["agreement"] = _agreement(
        contenders["resident"], contenders.get("resident, psa"), load(artifact, device="cpu"), pictures[:8]
    )
    print(f"   {data['agreement']}", flush=True)
    host = load(artifact, device=f"cuda:{index}")
    contenders["Localizer on CUDA"] = lambda some: host.batch(some)
    contenders["Localizer on CUDA, psa"] = lambda some: host.batch(some, refine="psa-fast")
    torch = device.torch
    for name, fast, half in (("PyTorch eager", False, False), ("PyTorch eager fp16", False, True),
                             *((("PyTorch compiled", True, False),) if compiled else ())):  # fmt: skip
        try:
            contenders[name] = _torch_pipeline(torch, manifest, fast, half)
        except ImportError as error:
            notes[name] = str(error)
    for name, why in notes.items():
        print(f"   {name}: {why}", flush=True)
    rows = [in_turns(contenders, pictures[:batch], seconds, notes) for batch in batches]
    data |= {"rows": rows, "could not run": notes, "picture size": SIZE}
    for one in opened:
        one.close()
    wrong = {name: value for name, value in data["agreement"].items() if value > LIMITS[name]}
    if wrong:
        raise Wrong(f"the resident pipeline is not the CPU's: {wrong}")


def in_turns(
    contenders: dict[str, Callable[[list[Any]], Any]], pictures: list[Any], seconds: float, notes: dict[str, str]
) -> dict[str, Any]:
    """Call the contenders alternately with one batch, each for `seconds`; one that fails goes into the notes."""
    batch, samples = len(pictures), {}
    for name, run in contenders.items():
        try:
            for _ in range(3):
                run(pictures)
        except Exception as error:
            notes[f"{name}, batch {batch}"] = f"{type(error).__name__}: {cut(str(error), 200)}"
            continue
        samples[name] = list[float]()
    end = time.perf_counter() + seconds * len(samples)
    while any(not taken for taken in samples.values()) or (samples and time.perf_counter() < end):
        for name, taken in samples.items():
            begin = time.perf_counter()
            contenders[name](pictures)
            taken.append(time.perf_counter() - begin)
    row = {name: figures(taken, batch) for name, taken in samples.items()}
    for name, values in row.items():
        print(f"   batch {batch}: {name}: {values}", flush=True)
    return {"batch": batch, "contenders": row}


def _half(artifact: Path, notes: dict[str, str]) -> Path | None:
    """The artifact in float16, beside it."""
    path = artifact.with_name(f"{artifact.stem}_fp16.onnx")
    try:
        from lidcam_export.precision.quantize import QuantizeOptions, quantize_artifact

        quantize_artifact(artifact, path, QuantizeOptions(precision="fp16"))
    except Exception as error:
        notes["fp16"] = f"{type(error).__name__}: {cut(str(error), 300)}"
        return None
    return path


#: Float32 on the GPU moves an activation map by 1e-6: a byte of a map by one, a mask's edge by a pixel or two.
LIMITS = {"other class": 0, "map": 1, "box pixels": 3, "refined map": 40, "refined box pixels": 8}


def _agreement(plain: Any, refined: Any, reference: Any, pictures: list[Any]) -> dict[str, float]:
    got, want = plain(pictures, maps=True), reference.batch(pictures)
    found = {
        "other class": float(sum(int(a) != b.class_id for a, b in zip(got.class_ids, want, strict=True))),
        "box pixels": _apart(got.boxes, [one.box for one in want]),
    }
    small = reference.pipeline.run([reference.pipeline.prepare(p) for p in pictures])["map8"][:, 0]
    found["map"] = float(np.abs(got.maps.astype(int) - small).max())
    if refined is not None:
        got, want = refined(pictures, maps=True), reference.batch(pictures, refine="psa-fast")
        found["refined box pixels"] = _apart(got.boxes, [one.box for one in want])
    return found


def _apart(got: Any, want: Any) -> float:
    """Largest distance of a side."""
    sides = [
        np.abs(np.subtract(a, b)).max() if a and b else (0 if a is b else 1e9) for a, b in zip(got, want, strict=True)
    ]
    return float(max(sides))
