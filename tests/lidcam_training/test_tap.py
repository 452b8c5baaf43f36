import numpy as np
import pytest
import torch
from lidcam_training.models import ThresholdedAveragePooling, thresholded_average_pool

from lidcam_rt.errors import InputError


def literal(features: np.ndarray, threshold: float) -> np.ndarray:
    """The formula of the paper, a pixel at a time."""
    out = np.zeros(features.shape[:2])
    for n in range(features.shape[0]):
        for c in range(features.shape[1]):
            limit = threshold * max(v for row in features[n, c] for v in row)
            kept = [v for row in features[n, c] for v in row if v > limit]
            out[n, c] = sum(kept) / len(kept) if kept else 0.0
    return out


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("relu", [True, False])
def test_equals_the_literal_loop(threshold, relu):
    x = np.random.default_rng(0).normal(size=(3, 5, 4, 6))
    x = np.maximum(x, 0) if relu else x
    x[0, 0] = 0.0
    x[1, 1] = -2.0
    x[2, 2] = 3.0
    got = thresholded_average_pool(torch.from_numpy(x), threshold).numpy()
    np.testing.assert_allclose(got, literal(x, threshold), rtol=1e-12, atol=1e-14)


def test_threshold_zero_on_relu_features_is_the_mean_of_active_pixels():
    x = torch.tensor([[[[0.0, 2.0], [4.0, 0.0]]]])
    assert thresholded_average_pool(x, 0.0).item() == 3.0


def test_gradients():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: thresholded_average_pool(t, 0.1), (x,))


def test_gradient_of_a_dead_channel_is_zero():
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    thresholded_average_pool(x, 0.05).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_float32(dtype):
    x = torch.full((1, 1, 384, 384), 100.0, dtype=dtype)  # the sum is beyond float16
    assert thresholded_average_pool(x, 0.05).item() == 100.0


def test_autocast_and_channels_last():
    x = torch.rand(2, 8, 7, 9)
    with torch.autocast("cpu", torch.bfloat16):
        got = ThresholdedAveragePooling(0.1)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, thresholded_average_pool(x, 0.1))


def test_export_with_a_dynamic_batch():
    module = ThresholdedAveragePooling(0.1)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (torch.rand(2, 3, 5, 5),), dynamic_shapes=({0: batch},))
    for n in (1, 2, 7):
        x = torch.rand(n, 3, 5, 5)
        torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.slow
def test_compile():
    module = ThresholdedAveragePooling(0.1)
    x = torch.rand(2, 3, 5, 5)
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))


def test_refuses_a_threshold_outside_0_to_1():
    with pytest.raises(InputError, match="0 to 1"):
        ThresholdedAveragePooling(5)
