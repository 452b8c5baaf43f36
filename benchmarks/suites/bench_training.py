"""Pictures per second of the loader alone, of the model alone, and of training, EfficientNet-Lite0 at 160
pixels.

pytest benchmarks/suites/bench_training.py --benchmark-json=out.json
"""

import numpy as np
import pytest
import torch
from lidcam_bench.data import open_data
from lidcam_training.data.composite import Composite, write_composites
from lidcam_training.data.loader import make_loader
from lidcam_training.models import ClassifierSpec, build_classifier
from lidcam_training.recipe import DataOptions

BATCH, COUNT = 32, 128


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("d") / "d"
    noise = (
        rng.integers(0, 255, (20, 20, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1) for _ in range(COUNT)
    )
    made = (Composite(image, np.ones((320, 320), bool), i % 10) for i, image in enumerate(noise))
    write_composites(folder, "d", tuple("abcdefghij"), 0, {"train": made})
    return open_data(f"stamps:{folder}", "train")


def loader(images):
    return make_loader(images, DataOptions(size=160, crop=144, batch_size=BATCH), train=True, seed=0)


def step(model, optimizer, batch):
    optimizer.zero_grad()
    x = batch["image"].float().div(128).sub(1).contiguous(memory_format=torch.channels_last)
    torch.nn.functional.cross_entropy(model(x), batch["target"]).backward()
    optimizer.step()


@pytest.fixture
def model():
    model = build_classifier(ClassifierSpec("tf_efficientnet_lite0", 10, stride=16))
    return model.to(memory_format=torch.channels_last)


def rate(benchmark):
    benchmark.extra_info["pictures_per_second"] = COUNT / benchmark.stats.stats.median


def test_loader_alone(benchmark, images):
    benchmark.pedantic(lambda: [None for _ in loader(images)], rounds=5, warmup_rounds=1)
    rate(benchmark)


def test_model_alone(benchmark, images, model):
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    batch = next(iter(loader(images)))
    benchmark.pedantic(
        lambda: [step(model, optimizer, batch) for _ in range(COUNT // BATCH)], rounds=3, warmup_rounds=1
    )
    rate(benchmark)


def test_training(benchmark, images, model):
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    benchmark.pedantic(
        lambda: [step(model, optimizer, batch) for batch in loader(images)], rounds=3, warmup_rounds=1
    )
    rate(benchmark)
