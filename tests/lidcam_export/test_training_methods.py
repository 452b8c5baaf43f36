import numpy as np
import pytest

torch = pytest.importorskip("torch")
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint  # noqa: E402
from lidcam_training.models import ClassifierSpec, build_classifier  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from lidcam_rt.cli.main import build_app  # noqa: E402


def test_acol_exports_the_maximum_of_its_two_maps(tmp_path):
    """The map of the artifact, before PaS, against the branches themselves."""
    import onnxruntime

    torch.manual_seed(0)
    model = build_classifier(ClassifierSpec("lidcam_seresnet_small", 4, pooling="gap", branches=2)).eval()
    save_checkpoint(model, CheckpointMeta(model.spec, tuple("abcd"), (64, 64)), tmp_path / "c")
    out = tmp_path / "m.onnx"
    result = CliRunner().invoke(build_app("export"), ["export", str(tmp_path / "c"), "-o", str(out)])
    assert result.exit_code == 0, result.output
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    feed = {"image": picture, "labels": np.array([[1], [3]])}
    cam = session.run(["cam"], feed)[0][:, 0]
    meta = CheckpointMeta(model.spec, tuple("abcd"), (64, 64))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (meta.mean, meta.std))
    with torch.no_grad():
        shared = model.shared_features((torch.from_numpy(picture).permute(0, 3, 1, 2).float() - mean) / std)
        both = torch.maximum(model.branch_a(shared), model.branch_b(shared)).numpy()
    np.testing.assert_allclose(cam, both[[0, 1], [1, 3]], rtol=1e-4, atol=1e-6)
