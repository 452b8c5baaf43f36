"""The floor: what the machine reaches at its best, so that a latency can be compared with what is possible.

Matrix products are measured with every library available, and the best of them counts. The best rate may be below the
machine's ceiling; the share of the rate that a network reaches is then overstated, never understated. Run as a program,
this module measures with the given number of threads and prints JSON:

    python -m lidcam_bench.latency.floor --threads 2
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import numpy as np

from lidcam_bench.latency.facts import Floor, Rate
from lidcam_rt.errors import LidcamError

__all__ = ["best_of", "best_rate", "measure_floor", "merge"]

_SIDE = 1024
_COPY_BYTES = 1 << 28
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def measure_floor(threads: Sequence[int], *, gpu: bool = False, seconds: float = 0.5) -> Floor:
    """Measure the floor, in a process of its own per number of threads.

    Args:
        threads: numbers of threads on the processor.
        gpu: whether the GPU is measured too (needs torch).
        seconds: per library and precision.

    Raises:
        LidcamError: a measuring process failed.
    """
    parts = []
    jobs = [["--threads", str(count)] for count in sorted(set(threads))] + ([["--gpu"]] if gpu else [])
    for job in jobs:
        environment = dict(os.environ)
        if job[0] == "--threads":
            environment |= dict.fromkeys(_VARIABLES, job[1])
        command = [sys.executable, "-m", "lidcam_bench.latency.floor", *job, "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise LidcamError(f"the floor could not be measured ({last[0]}): run `{' '.join(command[1:])}` to see why")
        parts.append(Floor.model_validate_json(done.stdout.splitlines()[-1]))
    return merge(parts)


def merge(parts: Iterable[Floor]) -> Floor:
    """Floors of several numbers of threads as one; missing is only what none could measure."""
    parts = list(parts)
    matrix = tuple(rate for part in parts for rate in part.matrix)
    have = {rate.what for rate in matrix}
    missing = {name: why for part in parts for name, why in part.missing.items() if name not in have}
    launches = [part.launch_us for part in parts if part.launch_us is not None]
    return Floor(
        matrix=matrix,
        bandwidth=tuple(rate for part in parts for rate in part.bandwidth),
        launch_us=launches[0] if launches else None,
        missing=missing,
    )


def best_of(before: Floor, after: Floor | None) -> Floor:
    """The higher rate of two measurements of the same machine: a ceiling is what was reached at some time."""
    if after is None:
        return before
    matrix = []
    for rate in before.matrix:
        again = after.rate(rate.what, rate.threads)
        matrix.append(again if again is not None and again.value > rate.value else rate)
    return before.model_copy(update={"matrix": tuple(matrix)})


def best_rate(
    work: float, call: Callable[[], object], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Work per second of the fastest call; calls are repeated for `seconds`, at least three after one to warm up.

    Args:
        work: of one call.
        call: what is timed.
        seconds: how long to repeat.
        clock: seconds.
    """
    call()
    best, count, end = float("inf"), 0, clock() + seconds
    while count < 3 or clock() < end:
        start = clock()
        call()
        best, count = min(best, clock() - start), count + 1
    return work / best


def _operands() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    shape = (_SIDE, _SIDE)
    return rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)


def _numpy(precision: str, threads: int) -> Callable[[], object] | None:
    if precision != "fp32":
        return None
    a, b = _operands()
    out = np.empty_like(a)
    return lambda: np.matmul(a, b, out=out)


def _onnxruntime(precision: str, threads: int) -> Callable[[], object] | None:
    if precision not in ("fp32", "int8"):
        return None
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    a, b = _operands()
    integer = precision == "int8"
    if integer:
        a, b = np.clip(a * 40 + 128, 0, 255).astype(np.uint8), np.clip(b * 40, -127, 127).astype(np.int8)
    kinds = (TensorProto.UINT8, TensorProto.INT32) if integer else (TensorProto.FLOAT, TensorProto.FLOAT)
    shape = [_SIDE, _SIDE]
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if integer else "MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", kinds[0], shape)],
        [helper.make_tensor_value_info("c", kinds[1], shape)],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a})


def _openvino(precision: str, threads: int) -> Callable[[], object] | None:
    if precision not in ("fp32", "bf16"):
        return None
    import openvino as ov
    from openvino import opset13 as ops

    a, b = _operands()
    parameter = ops.parameter([_SIDE, _SIDE], np.float32)
    product = ops.matmul(parameter, ops.constant(b), False, False)
    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    hints = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    request = core.compile_model(ov.Model([product], [parameter]), "CPU", hints).create_infer_request()
    return lambda: request.infer([a], share_inputs=True, share_outputs=True)


def _torch(precision: str, threads: int) -> Callable[[], object] | None:
    if precision not in ("fp32", "bf16"):
        return None
    import torch

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.from_numpy(x).to(dtype) for x in _operands())
    return lambda: torch.matmul(a, b)


_LIBRARIES: dict[str, tuple[str, Callable[[str, int], Callable[[], object] | None]]] = {
    "numpy": ("numpy", _numpy),
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "openvino": ("openvino", _openvino),
    "torch": ("torch", _torch),
}
_WAY_OUT = {"fp32": "", "bf16": "needs openvino or torch: pip install 'lidcam-rt[openvino]'",
            "int8": "needs onnx: pip install onnx"}  # fmt: skip


def measure_here(threads: int, seconds: float) -> Floor:
    """The floor of the processor with this many threads, in this process."""
    matrix, missing = [], {}
    operations = 2.0 * _SIDE**3
    for precision, way_out in _WAY_OUT.items():
        best: Rate | None = None
        reasons = []
        for name, (package, make) in _LIBRARIES.items():
            try:
                call = make(precision, threads)
                if call is None:
                    continue
                value = best_rate(operations / 1e9, call, seconds)
            except ImportError:
                continue
            except Exception as error:  # a library that cannot do this precision here
                reasons.append(f"{name}: {(str(error).strip() or repr(error)).splitlines()[0][:120]}")
                continue
            if best is None or value > best.value:
                best = Rate(what=precision, threads=threads, value=value, by=f"{name} {version(package)}")
        if best is not None:
            matrix.append(best)
        else:
            missing[precision] = "; ".join(reasons) or way_out or "no library at hand does it"
    copy = Rate(what="copy", threads=threads, value=_copy_rate(threads, seconds), by=f"numpy {np.__version__}")
    return Floor(matrix=tuple(matrix), bandwidth=(copy,), missing=missing)


def _copy_rate(threads: int, seconds: float) -> float:
    """10^9 bytes read and written per second, all threads together."""
    size = _COPY_BYTES // threads
    sources = [np.ones(size, np.uint8) for _ in range(threads)]
    targets = [np.zeros(size, np.uint8) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return best_rate(2.0 * size * threads / 1e9, lambda: list(pool.map(np.copyto, targets, sources)), seconds)


def measure_gpu(seconds: float, torch: Any = None) -> Floor:
    """The floor of the GPU, through torch."""
    try:
        torch = torch or importlib.import_module("torch")
    except ImportError:
        return Floor(missing={"GPU": "needs torch: pip install torch"})
    if not torch.cuda.is_available():
        return Floor(missing={"GPU": "torch finds no GPU"})
    side, by = 8192, f"torch {torch.__version__}"

    def finished(run: Callable[[], object]) -> Callable[[], object]:
        def call() -> None:
            run()
            torch.cuda.synchronize()

        return call

    matrix, missing = [], {}
    for precision, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        try:
            a, b = (torch.randn(side, side, device="cuda", dtype=dtype) for _ in range(2))
            value = best_rate(2.0 * side**3 / 1e9, finished(lambda a=a, b=b: torch.matmul(a, b)), seconds)  # type: ignore[misc]
            matrix.append(Rate(what=precision, threads=0, value=value, by=by))
        except RuntimeError as error:
            missing[precision] = str(error).splitlines()[0][:120]
    source = torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    value = best_rate(2.0 * source.numel() / 1e9, finished(lambda: target.copy_(source)), seconds)
    tiny = torch.zeros(1, device="cuda")
    launches = 1000
    per_second = best_rate(launches, finished(lambda: [tiny.fill_(1.0) for _ in range(launches)]), seconds)
    return Floor(
        matrix=tuple(matrix),
        bandwidth=(Rate(what="copy", threads=0, value=value, by=by),),
        launch_us=1e6 / per_second,
        missing=missing,
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args(arguments)
    with contextlib.redirect_stdout(sys.stderr):
        found = measure_gpu(options.seconds) if options.gpu else measure_here(options.threads, options.seconds)
    print(found.model_dump_json())


if __name__ == "__main__":
    main()
