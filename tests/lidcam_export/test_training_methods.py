"""The methods of the talk's comparison export to the same artifact."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint  # noqa: E402
from lidcam_training.models import ClassifierSpec, build_classifier  # noqa: E402
from lidcam_training.models.classifier import activation_maps  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from lidcam_cli.app import build_app  # noqa: E402

pytestmark = pytest.mark.slow  # not in make quick


@pytest.mark.parametrize(
    "spec",
    [
        ClassifierSpec("lidcam_seresnet_small", 4, pooling="gap", branches=2),
        ClassifierSpec("lidcam_seresnet_small", 4, pooling="tap", rounds=1),
        ClassifierSpec("lidcam_seresnet_small", 4, pooling="tap"),
    ],
    ids=["acol", "ae", "has-and-adl"],
)
def test_the_artifact_has_the_classifiers_logits_and_map(tmp_path, spec):
    """Fused maps and, for AE, erasing between two networks are inside the graph; batch and size stay free."""
    import onnxruntime

    torch.manual_seed(0)
    model = build_classifier(spec).eval()
    torch.nn.init.normal_(model.steps[0].head.weight if spec.rounds else model.head.weight, std=0.3)
    if spec.branches == 2:
        model = build_classifier(spec).eval()  # its head is fixed
    if spec.rounds:
        model.activate(2)
    meta = CheckpointMeta(model.spec, tuple("abcd"), (64, 64))
    save_checkpoint(model, meta, tmp_path / "c")
    out = tmp_path / "m.onnx"
    result = CliRunner().invoke(build_app("export"), ["export", str(tmp_path / "c"), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "any size" in result.output
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3)).astype(np.uint8)
    logits, cam = session.run(["logits", "cam"], {"image": picture, "labels": np.array([[1], [3]])})
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (meta.mean, meta.std))
    with torch.no_grad():
        features = model.forward_features((torch.from_numpy(picture).permute(0, 3, 1, 2).float() - mean) / std)
        maps = activation_maps(features, model.head_weight, torch.tensor([1, 3]), nwc=True).numpy()
        want = model.pool_and_classify(features).numpy()
    np.testing.assert_allclose(cam[:, 0], maps, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(logits, want, rtol=1e-3, atol=1e-5)
    if spec.branches == 2 or spec.rounds:
        assert maps.min() >= 0
        assert maps.max() == pytest.approx(1, abs=1e-5)
