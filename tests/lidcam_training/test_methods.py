"""HaS, ADL, ACoL and AE: what each does to a batch, and that each trains into a classifier that exports."""

import itertools

import pytest
import torch
from lidcam_training.checkpoint import load_checkpoint
from lidcam_training.fit import fit
from lidcam_training.methods import METHODS, MethodOptions
from lidcam_training.methods.adl import attach_attention_dropout, attention_dropout
from lidcam_training.methods.has import hide_patches
from lidcam_training.models import ClassifierSpec, build_classifier
from lidcam_training.models.classifier import activation_maps
from lidcam_training.models.erasing import erase_regions
from lidcam_training.recipe import read_recipe

from lidcam_rt.errors import InputError

pytestmark = pytest.mark.slow  # not in make quick


def trained(clutter, run, name, *more):
    overrides = [f"data.source=clutter-fashion:{clutter}", "data.size=32", "data.batch_size=16", "epochs=2", *more]
    fit(read_recipe(f"clutter_fashion_{name}", overrides), run, progress=False)
    return load_checkpoint(run / "checkpoint").model


def clamped(model, x):
    """Logits, and the maps of all classes with negative weights clamped, as an artifact gives them."""
    with torch.no_grad():
        features = model.forward_features(x)
        labels = range(model.spec.num_classes)
        maps = [activation_maps(features, model.head_weight, torch.full((len(x),), k), nwc=True) for k in labels]
        assert torch.equal(model.pool_and_classify(features), model(x))
        return model(x), torch.stack(maps, 1)


def scaled(maps):
    """0..1 by minimum and maximum, a map at a time."""
    flat = [(m - m.min()) / (m.max() - m.min()) for m in maps.flatten(0, 1)]
    return torch.stack(flat).view_as(maps)


@pytest.mark.parametrize("name", ["has", "adl"])
def test_has_and_adl_train_an_ordinary_classifier(tmp_path, clutter, name):
    model = trained(clutter, tmp_path / "r", name)
    logits, maps = clamped(model, torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    assert maps.shape == (2, 10, 8, 8)


def test_acol_classifies_by_its_first_branch_and_fuses_scaled_maps(tmp_path, clutter):
    model = trained(clutter, tmp_path / "r", "acol")
    x = torch.rand(2, 3, 32, 32)
    logits, maps = clamped(model, x)
    with torch.no_grad():
        shared = model.shared_features(x)
        first, second = model.branch_a(shared), model.branch_b(shared)
    torch.testing.assert_close(maps, torch.maximum(scaled(first), scaled(second)))
    torch.testing.assert_close(logits, first.mean((2, 3)), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"model\.pooling=gap"):
        trained(clutter, tmp_path / "t", "acol", "model.pooling=tap")


def test_ae_trains_a_chain_a_classifier_at_a_time(tmp_path, clutter):
    """Three classifiers in three epochs; the map is the union of what they find, each where the others erased."""
    model = trained(clutter, tmp_path / "r", "ae", "epochs=3", "method.rounds=2", "model.pooling=tap", "optim.ema=0.5")
    assert (len(model.steps), model.active) == (3, 3)
    x = torch.rand(2, 3, 32, 32)
    logits, maps = clamped(model, x)
    with torch.no_grad():
        torch.testing.assert_close(logits, model.steps[0](x), rtol=1e-4, atol=1e-5)
        label, union, seen = logits.argmax(1), None, x
        for step in model.steps:
            own = torch.einsum("nchw,kc->nkhw", step.forward_features(seen), step.head_weight)
            union = scaled(own) if union is None else torch.maximum(union, scaled(own))
            seen = erase_regions(seen, own[torch.arange(2), label], 0.8)
    torch.testing.assert_close(maps, union, rtol=1e-4, atol=1e-5)
    one = trained(clutter, tmp_path / "s", "ae", "epochs=2", "data.limit=32")
    assert one.active == 2
    with pytest.raises(InputError, match=r"1 to epochs - 1 \(1\)"):
        trained(clutter, tmp_path / "t", "ae", "method.rounds=2")


def test_a_chain_trains_one_classifier_and_leaves_the_others():
    torch.manual_seed(0)
    chain = build_classifier(ClassifierSpec("lidcam_seresnet_small", 3, pooling="gap", rounds=1)).train()
    x, target = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    for active in (1, 2):
        chain.activate(active)
        chain.zero_grad()
        statistics = chain.steps[0].backbone.stem[1].running_mean.clone()
        METHODS["ae"].loss(chain, MethodOptions("ae"), x, target, torch.nn.functional.cross_entropy).backward()
        learns = [any(p.grad is not None for p in step.parameters()) for step in chain.steps]
        assert learns == [active == 1, active == 2]
        assert torch.equal(statistics, chain.steps[0].backbone.stem[1].running_mean) == (active == 2)
    again = build_classifier(chain.spec)
    again.load_state_dict(chain.state_dict())
    assert again.active == 2


def test_has_hides_whole_patches_with_the_mean():
    torch.manual_seed(0)
    hidden = hide_patches(torch.ones(64, 3, 30, 30), 4, 0.5)
    edges = [-(-30 * k // 4) for k in range(5)]
    for top, bottom in itertools.pairwise(edges):
        for left, right in itertools.pairwise(edges):
            patch = hidden[:, :, top:bottom, left:right].flatten(1)
            assert torch.equal(patch.amin(1), patch.amax(1))  # as a whole, in all channels
    assert hidden.mean() == pytest.approx(0.5, abs=0.05)


def test_adl_drops_the_most_attended_or_weights_by_attention():
    torch.manual_seed(0)
    x = torch.rand(3, 5, 6, 6) + 0.1
    attention = x.mean(1, keepdim=True)
    peaks = attention >= 0.8 * attention.amax((2, 3), keepdim=True)
    torch.testing.assert_close(attention_dropout(x, 1.0, 0.8), torch.where(peaks, 0.0, x))
    torch.testing.assert_close(attention_dropout(x, 0.0, 0.8), x * torch.sigmoid(attention))


def test_adl_acts_inside_the_backbone_while_it_trains():
    backbone = build_classifier(ClassifierSpec("lidcam_seresnet_small", 2)).backbone
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        plain = backbone.eval().forward_features(x)
        assert attach_attention_dropout(backbone, None, 1.0, 0.5) == ("stages.0", "stages.2")
        assert torch.equal(backbone.forward_features(x), plain)
        backbone.stages.train()
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        assert not torch.equal(backbone.forward_features(x), plain)
    with pytest.raises(InputError, match=r"layer9.*stages\.0, stages\.2, stages\.4"):
        attach_attention_dropout(backbone, ("layer9",), 0.75, 0.8)


@pytest.mark.parametrize(
    ("backbone", "stages"),
    [("seresnet50", ("layer2", "layer3")), ("resnet50", ("layer2", "layer3")), ("mobilenetv2_100", None)],
)
def test_adl_knows_the_stages_of_timm(backbone, stages):
    import timm

    found = attach_attention_dropout(timm.create_model(backbone), None, 0.75, 0.8)
    assert len(found) == 2
    assert stages is None or found == stages
