"""The accuracy pass of a benchmark: against labels, and against another target."""

from __future__ import annotations

import artifacts
import pytest
from lidcam_bench.latency.accuracy import measure_accuracy
from lidcam_bench.latency.job import AccuracyJob
from lidcam_bench.latency.plan import BenchOptions, plan_targets
from lidcam_bench.latency.target import Target, open_target

from lidcam_rt.errors import InputError


def test_accuracy_against_masks_is_that_of_eval(model, labelled):
    from lidcam_bench.evaluation import EvalOptions, evaluate, open_data

    with open_target(Target(path=model)) as localizer:
        found = measure_accuracy(localizer, Target(path=model), AccuracyJob(data=str(labelled)))
        expected = evaluate(localizer, open_data(str(labelled)), labelled.parent / "eval", EvalOptions(replicates=0))
    rows = expected["rows"]["predicted class"]
    assert found.scores["track3"] == rows["track3"]["scores"]["peak_iou"]
    assert found.scores["max_box_acc"] == rows["max_box_acc"]["scores"]["max_box_acc"]
    assert found.scores["top1_cls"] == 100 and 0.5 < found.scores["miou"] <= 1
    assert found.images == 4 and not found.agreement and found.reference is None


def test_accuracy_against_a_reference(model, plain, tmp_path):
    other = artifacts.build(tmp_path / "other.onnx", theta=0.9, top_k=2)
    images = tuple(sorted(plain.iterdir()))
    reference = AccuracyJob(images=images, reference=Target(path=model))
    for path, same in ((model, True), (other, False)):
        with open_target(Target(path=path)) as localizer:
            found = measure_accuracy(localizer, Target(path=path), reference)
        assert (found.agreement["mask_iou_mean"] == 1) is same and found.reference == "tiny.onnx"
        assert found.images == 4 and found.agreement["top1_agreement_percent"] == 100
    with open_target(Target(path=model)) as localizer:
        empty = measure_accuracy(localizer, Target(path=model), AccuracyJob())
    assert empty.reason == "there are no labels, masks or boxes, and no reference"


def test_a_network_of_other_classes_is_held_against_the_first_of_its_own(model, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "CLASSES", [f"{name}ish" for name in artifacts.CLASSES])
    own = [artifacts.build(tmp_path / f"{theta}.onnx", theta=theta) for theta in (0.35, 0.9)]
    targets = plan_targets([model, *own], BenchOptions())
    job = AccuracyJob(images=tuple(sorted(plain.iterdir())), reference=targets[0], others=tuple(targets[1:]))
    found = []
    for target in targets[1:]:
        with open_target(target) as localizer:
            found.append(measure_accuracy(localizer, target, job))
    assert (found[0].reference, found[0].agreement) == (None, {})  # the first with these classes
    assert found[0].notes == ("Not compared with tiny.onnx, which has other classes or is of another kind.",)
    assert found[1].reference == "0.35.onnx" and 0 < found[1].agreement["mask_iou_mean"] < 1
    with open_target(targets[1]) as localizer, pytest.raises(InputError, match="different classes"):
        measure_accuracy(localizer, targets[1], job.model_copy(update={"others": ()}))  # --reference was given


def test_accuracy_of_label_maps(model, labelled):
    target = Target(path=model, pipeline="track1")
    with open_target(target) as localizer:
        found = measure_accuracy(localizer, target, AccuracyJob(data=str(labelled)))
    assert 0 < found.scores["miou"] <= 1 and "mean_iou" not in found.scores


def test_classes_that_are_not_the_model_s_are_told_of(model, tmp_path):
    folder = artifacts.data_set(tmp_path / "photos", 4)
    target = Target(path=model)
    with open_target(target) as localizer:
        job = AccuracyJob(data=str(folder))
        assert measure_accuracy(localizer, target, job).warning == ""
        for name in ("labels.csv", "classes.txt"):
            (folder / name).write_text((folder / name).read_text().replace("red", "cat"))
        found = measure_accuracy(localizer, target, job)
        assert found.warning == "1 of the data's 4 classes are missing from the model"
        for name in ("labels.csv", "classes.txt"):
            text = (folder / name).read_text()
            for colour in artifacts.CLASSES:
                text = text.replace(colour, f"{colour}ish")
            (folder / name).write_text(text)
        found = measure_accuracy(localizer, target, job)
    assert found.warning.startswith("the model's classes are not those of the data")
    assert found.scores["miou"] > 0.5 and any("nothing about classification" in note for note in found.notes)


def test_label_maps_of_other_classes_are_not_compared(plain, tmp_path, monkeypatch):
    """Label 1 of one is label 4 of the other: a share of flipped pixels would tell nothing."""
    first = artifacts.build_segmentation(tmp_path / "first.onnx")
    monkeypatch.setattr(artifacts, "CLASSES", artifacts.CLASSES[::-1])
    second = Target(path=artifacts.build_segmentation(tmp_path / "second.onnx"))
    job = AccuracyJob(images=tuple(sorted(plain.iterdir())), reference=Target(path=first))
    with open_target(second) as segmenter:
        with pytest.raises(InputError, match="different classes"):
            measure_accuracy(segmenter, second, job)
        found = measure_accuracy(segmenter, second, job.model_copy(update={"reference": second}))
    assert found.agreement == {"flipped_percent": 0}
