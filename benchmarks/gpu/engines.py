"""The artifact on a GPU: ONNX Runtime's CUDA provider, TensorRT, TensorRT for RTX; against ONNX Runtime on the CPU."""

from __future__ import annotations

import importlib
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.report import Cannot, Wrong

__all__ = ["check_onnxruntime", "check_tensorrt", "make_artifact", "where_nodes_ran"]

OUTPUTS = ("logits", "class_ids", "scores", "cam", "map8", "mask", "threshold")


def make_artifact(data: dict[str, Any], folder: Path, *, given: Path | None = None, network: str = "") -> Path:
    """The artifact to run: a given one, or a network of timm with random weights.

    Raises:
        Cannot: a package is missing.
    """
    if given is not None:
        data["artifact"] = given.name
        return given
    try:
        import torch
        from lidcam_export.exporter import export_artifact
        from lidcam_export.options import ExportOptions
    except ImportError as error:
        raise Cannot(f"exporting needs a package that is not here ({error})") from None
    name = network or "timm:seresnet50"
    torch.manual_seed(0)
    path = folder / "model.onnx"
    _, agreement = export_artifact(name, path, ExportOptions(random_weights=True, size=(384, 384)))
    data |= {"artifact": name, "bytes": path.stat().st_size, "agreement": agreement}
    return path


def _feeds(manifest: Any, batch: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Smooth random pictures as the artifact's input, with no class requested."""
    rng = np.random.default_rng(seed)
    spec = manifest.input
    coarse = rng.integers(0, 256, (batch, -(-spec.height // 32), -(-spec.width // 32), 3)).astype(np.float32)
    image = coarse.repeat(32, 1).repeat(32, 2)[:, : spec.height, : spec.width]
    if spec.dtype == "uint8":
        array = image.astype(np.uint8)
    else:
        array = np.ascontiguousarray((image.transpose(0, 3, 1, 2) - 128) / 64, dtype=np.float32)
    labels = np.full((batch, manifest.top_k), -1, np.int64) if manifest.labels_input else None
    return array, labels


def compare(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> dict[str, float]:
    """How far two runs are apart: relative for logits and cam, shares for classes and mask pixels."""
    relative = {
        name: float(np.abs(got[name] - want[name]).max() / max(float(np.abs(want[name]).max()), 1e-12))
        for name in ("logits", "cam")
    }
    return relative | {
        "other class": float((got["class_ids"] != want["class_ids"]).mean()),
        "map": float(np.abs(got["map8"].astype(int) - want["map8"]).max()),
        "mask flipped": float((got["mask"] != want["mask"]).mean()),
    }


def _pas_of_its_own_cam(got: dict[str, np.ndarray], manifest: Any) -> float:
    """Share of mask pixels other than the CPU kernel's on the very cam that the engine returned."""
    from lidcam_rt.pas import pas

    want = pas(got["cam"], got["mask"].shape[2:], manifest.pas)
    return float((got["mask"].astype(bool) != want.mask).mean())


def _milliseconds(call: Callable[[], Any], rounds: int) -> dict[str, float]:
    for _ in range(3):
        call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return {"median": round(statistics.median(times), 3), "p10": round(float(np.percentile(times, 10)), 3),
            "p90": round(float(np.percentile(times, 90)), 3), "samples": rounds}  # fmt: skip


def _run_and_compare(
    backend: Any, reference: Any, manifest: Any, data: dict[str, Any], *, batches: Any, rounds: int, tolerance: float
) -> None:
    rows = []
    for batch in batches:
        image, labels = _feeds(manifest, batch, batch)
        got, want = (engine.run(image, labels, OUTPUTS) for engine in (backend, reference))
        difference = compare(got, want) | {"mask other than PaS of its own cam": _pas_of_its_own_cam(got, manifest)}
        run = _milliseconds(lambda i=image, la=labels: backend.run(i, la, ("class_ids", "map8")), rounds)
        rows.append({"batch": batch, "difference": difference, "milliseconds, copies included": run})
        print(f"   batch {batch}: {run['median']:.2f} ms, {difference}", flush=True)
    data["rows"] = rows
    for row in rows:
        difference = row["difference"]
        if not all(np.isfinite(v) for v in difference.values()):
            raise Wrong(f"batch {row['batch']}: values that are not finite: {difference}")
        if max(difference["logits"], difference["cam"]) > tolerance:
            raise Wrong(f"batch {row['batch']}: further from the CPU than {tolerance}: {difference}")
        if difference["mask other than PaS of its own cam"] > 1e-4:
            raise Wrong(f"batch {row['batch']}: its mask is not PaS of its own cam: {difference}")


def where_nodes_ran(ort: Any, artifact: Path, manifest: Any, device: str) -> dict[str, Any]:
    """Which provider ran each kind of node in one call, and how often memory crossed between host and device.

    Only the profile tells: an operator library is registered with a CPU kernel too, and a node falls back
    silently.

    Returns:
        `PaS ran on`: providers of the PaS node, or of its body's nodes where no library is registered; `nodes by
        provider`; `memory copies`: how many MemcpyToHost and MemcpyFromHost nodes.
    """
    from lidcam_rt.backends.onnxruntime import cuda_options, session_options

    options = session_options(manifest)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        index = int(device.partition(":")[2] or 0)
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.startswith("cuda"):
            providers.insert(0, ("CUDAExecutionProvider", cuda_options(index)))
        session = ort.InferenceSession(str(artifact), sess_options=options, providers=providers)
        image, labels = _feeds(manifest, 1, 0)
        feed = {"image": image} | ({} if labels is None else {"labels": labels})
        session.run(["class_ids", "map8", "mask", "threshold"], feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event["args"] for event in events if event.get("cat") == "Node" and "provider" in event.get("args", {})]
    by_provider = Counter(node["provider"] for node in nodes)
    pas = sorted({node["provider"] for node in nodes if node["op_name"] == "PaS"})
    copies = Counter(node["op_name"] for node in nodes if node["op_name"].startswith("Memcpy"))
    return {"PaS ran on": pas or "its body's operators", "nodes by provider": dict(by_provider),
            "memory copies": dict(copies)}  # fmt: skip


def check_onnxruntime(
    data: dict[str, Any], artifact: Path, *, device: str = "cuda", batches: Any = (1, 8, 32), rounds: int = 30,
) -> None:  # fmt: skip
    """The artifact in ONNX Runtime on the GPU, with the operator library where it was built.

    Raises:
        Cannot: onnxruntime has no CUDA provider, or it cannot start.
        Wrong: its results are not the CPU's.
    """
    try:
        import onnxruntime as ort

        from lidcam_rt.artifact import read_manifest
        from lidcam_rt.backends.onnxruntime import open_backend
    except ImportError as error:
        raise Cannot(f"a package is missing ({error})") from None
    from lidcam_rt.errors import BackendError
    from lidcam_rt.pas import ops_library

    data |= {"onnxruntime": ort.__version__, "providers": ort.get_available_providers()}
    manifest = read_manifest(artifact)
    try:
        backend = open_backend(artifact, manifest, device=device)
    except BackendError as error:
        raise Cannot(str(error)) from None
    data["operator library"] = str(ops_library() is not None and backend.ops_registered)
    data |= where_nodes_ran(ort, artifact, manifest, device)
    reference = open_backend(artifact, manifest, device="cpu")
    _run_and_compare(backend, reference, manifest, data, batches=batches, rounds=rounds, tolerance=2e-2)


def check_tensorrt(
    data: dict[str, Any], artifact: Path, folder: Path, *, flavour: str, precision: str, pas: str = "body",
    batches: Any = (1, 8, 32), rounds: int = 30, trt: Any = None, cuda: Any = None,
) -> None:  # fmt: skip
    """Build an engine, load it, compare it with ONNX Runtime on the CPU, time it.

    Raises:
        Cannot: TensorRT is not installed, or does not build for this GPU.
        Wrong: its results are not the CPU's.
    """
    module = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}[flavour]
    if trt is None:
        try:
            trt = importlib.import_module(module)
        except Exception as error:
            raise Cannot(f"{module} cannot be imported ({error})") from None
    try:
        from lidcam_export.tensorrt.builder import build_engine
        from lidcam_export.tensorrt.options import BuildOptions

        from lidcam_rt.backends.onnxruntime import open_backend as open_onnxruntime
        from lidcam_rt.backends.tensorrt import open_backend
        from lidcam_rt.errors import BackendError, ExportError, InputError
    except ImportError as error:
        raise Cannot(f"a package is missing ({error})") from None
    output = folder / f"{flavour}_{precision}_{pas}.engine"
    try:
        options = BuildOptions(flavour=flavour, precision=precision, pas=pas, force=True)
        spec = build_engine(artifact, output, options, trt=trt).spec
    except (BackendError, InputError) as error:
        raise Cannot(str(error)) from None
    except ExportError as error:
        if "builds for compute capability" in str(error) or "cannot bake plugins" in str(error):
            raise Cannot(str(error)) from None
        raise
    data |= {"version": spec.version, "bytes": spec.engine_bytes, "built": spec.built, "evidence": spec.evidence,
             "half check": spec.half_check}  # fmt: skip
    manifest = spec.read_manifest(output)
    backend = open_backend(output, manifest, trt=trt, cuda=cuda)
    reference = open_onnxruntime(artifact, manifest, device="cpu")
    try:
        _run_and_compare(
            backend, reference, manifest, data, batches=batches, rounds=rounds,
            tolerance=5e-2 if precision == "fp16" else 2e-2,
        )  # fmt: skip
    finally:
        backend.close()
