"""BatchNorm folded into convolutions against PyTorch's own order, in networks of several forms."""

import pytest
import torch
from lidcam_training.models import ClassifierSpec, build_classifier
from lidcam_training.models.folding import folded
from torch import nn

pytestmark = pytest.mark.slow  # not in make quick


def norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def trained(network):
    """Statistics and weights as after a training: none of them is 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.copy_(0.5 + torch.rand(values.shape, generator=generator))
            for values in (module.bias.data, module.running_mean):
                values.copy_(0.2 * torch.randn(values.shape, generator=generator))
    return network.eval()


# densenet normalises what it concatenates: half of its norms have no convolution of their own before them
@pytest.mark.parametrize(
    ("backbone", "left"),
    [("tf_efficientnet_lite0", 0), ("seresnet50", 0), ("lidcam_seresnet_small", 0), ("densenet121", 62)],
)
def test_the_same_features_without_norms(backbone, left):
    torch.manual_seed(0)
    network = trained(build_classifier(ClassifierSpec(backbone=backbone, num_classes=3)))
    before = norms(network)
    result = folded(network)
    assert norms(result) == left < before == norms(network)
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = network.forward_features(x)
        torch.testing.assert_close(result.forward_features(x), wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


class Odd(nn.Module):
    """A convolution whose output is read by a BatchNorm and by a sum that no module makes."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward_features(self, x):
        y = self.convolution(x)
        return self.norm(y) + y


def test_nothing_is_folded_where_something_else_reads_the_convolution():
    torch.manual_seed(0)
    network = trained(Odd())
    result = folded(network)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(result.forward_features(x), network.forward_features(x))
    assert norms(result) == 1
