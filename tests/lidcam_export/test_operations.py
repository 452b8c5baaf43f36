"""The operations that ONNX Runtime's profile counts are those that torch counts."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from lidcam_bench.latency.node_profile import count_operations, counting_options, profile_nodes
from torch.utils.flop_counter import FlopCounterMode


@pytest.mark.slow
def test_operations_of_a_real_network_are_torch_s(resnet10):
    network = timm.create_model("resnet10t").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    feed = {"image": np.zeros((1, 224, 224, 3), np.uint8), "labels": np.full((1, 1), -1, np.int64)}
    runs = profile_nodes(resnet10, [feed], options=counting_options())
    cam = 2 * 512 * 7 * 7  # which torch's network does not have
    assert count_operations(runs) == counter.get_total_flops() + cam
