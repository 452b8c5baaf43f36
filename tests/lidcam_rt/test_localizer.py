from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import artifacts
import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import lidcam_rt
from lidcam_rt.errors import ArtifactError, BackendError, ImageError, InputError
from lidcam_rt.results import Failure


def iou(a, b):
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = lambda r: (r[2] - r[0]) * (r[3] - r[1])  # noqa: E731
    return w * h / (area(a) + area(b) - w * h)


@pytest.mark.parametrize("colour", artifacts.CLASSES)
@pytest.mark.parametrize("box", [(40, 24, 104, 72), (0, 0, 60, 40), (90, 50, 160, 96)])
def test_finds_the_colour(localizer, colour, box):
    result = localizer(artifacts.picture(colour, box))
    assert result.class_name == colour == result.topk[0].class_name
    assert result.map.shape == result.mask.shape == (96, 160)
    assert result.map.dtype == np.uint8 and result.mask.dtype == np.bool_
    assert iou(result.box, box) > 0.8


def test_box_is_that_of_the_largest_component(localizer):
    pixels = artifacts.picture("red", (8, 8, 40, 40))
    pixels[50:90, 80:150] = artifacts.COLOURS["red"]
    result = localizer(pixels)
    labelled, count = ndimage.label(result.mask, np.ones((3, 3)))
    assert count == 2
    largest = 1 + int(np.argmax(np.bincount(labelled.ravel())[1:]))
    rows, columns = ndimage.find_objects(labelled)[largest - 1]
    assert result.box == (columns.start, rows.start, columns.stop, rows.stop)


def test_original_size_follows_the_stated_rule(localizer, model):
    import onnxruntime as ort

    from lidcam_rt.image import network_input

    pixels = artifacts.picture("green")
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = ["map8", "threshold", "logits"]
    map8, threshold, logits = session.run(
        names, {"image": network_input(pixels, localizer.manifest.input)[None], "labels": np.full((1, 2), -1)}
    )
    result = localizer(pixels)
    full = cv2.resize(map8[0, 0], (160, 96), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(result.map, full)
    np.testing.assert_array_equal(result.mask, full > threshold[0, 0])
    p = np.exp(logits[0] - logits[0].max())
    assert result.score == pytest.approx(p[result.class_id] / p.sum(), rel=1e-6)


def test_labels_localize_another_class(localizer):
    pixels = artifacts.picture("red", (0, 0, 80, 60))
    pixels[70:96, 120:160] = artifacts.COLOURS["blue"]
    assert localizer(pixels).class_name == "red"
    result = localizer(pixels, labels=[2])
    assert result.class_name == "blue" and result.topk[0].class_name == "red"
    assert iou(result.box, (120, 70, 160, 96)) > 0.7
    both = localizer(pixels, top_k=2)
    assert both.class_name == "red" and [other.class_name for other in both.others] == ["blue"]
    assert both.others[0].box == result.box


@pytest.mark.parametrize(
    ("labels", "says"),
    [([4], "out of range"), ([-1], "out of range"), ([0, 1, 2], "1 to 2 labels"), ([], "1 to 2 labels"),
     ([1.5], "whole numbers"), ([True], "whole numbers"), ("red", "whole numbers")],
)  # fmt: skip
def test_wrong_labels(localizer, labels, says):
    with pytest.raises(InputError, match=says):
        localizer(artifacts.picture(), labels=labels)


@pytest.mark.parametrize("top_k", [0, 3, -1, 1.0, True])
def test_wrong_top_k(localizer, top_k):
    with pytest.raises(InputError, match="top_k must be 1 to 2"):
        localizer(artifacts.picture(), top_k=top_k)


@pytest.mark.parametrize("options", [
    {"dtype": "float32"},
    {"resize": "letterbox"}, {"size": (48, 80)}, {"labels": False}, {"task": "multilabel"},
])  # fmt: skip
def test_other_manifests(tmp_path, options):
    path = artifacts.build(tmp_path / "m.onnx", **options)
    with lidcam_rt.load(path) as other:
        result = other(artifacts.picture("blue", (100, 8, 150, 60)))
        assert result.class_name == "blue" and iou(result.box, (100, 8, 150, 60)) > 0.7
        if options.get("labels") is False:
            with pytest.raises(InputError, match="takes no labels"):
                other(artifacts.picture(), labels=[0])


def test_empty_mask_has_no_box(localizer):
    result = localizer(np.full((20, 30, 3), 128, np.uint8))
    assert result.box is None and not result.mask.any()
    assert result.to_dict()["box"] is None


def test_one_pixel(localizer):
    result = localizer(np.full((1, 1, 3), 255, np.uint8))
    assert result.map.shape == (1, 1)


@pytest.mark.parametrize("n", [1, 3, 32])
def test_batch_equals_one_at_a_time(localizer, n):
    images = [artifacts.picture(artifacts.CLASSES[i % 4], (i, i, i + 40, i + 30)) for i in range(n)]
    for image, result in zip(images, localizer.batch(images), strict=True):
        single = localizer(image)
        assert result.class_id == single.class_id and result.box == single.box
        np.testing.assert_array_equal(result.map, single.map)


def test_batch_of_nothing_and_labels(localizer):
    assert localizer.batch([]) == []
    results = localizer.batch([artifacts.picture()] * 3, labels=[None, 2, [3, 1]])
    assert [r.class_name for r in results] == ["red", "blue", "yellow"]
    assert [o.class_name for o in results[2].others] == ["green"]
    with pytest.raises(InputError, match="one entry per picture"):
        localizer.batch([artifacts.picture()], labels=[])
    with pytest.raises(InputError, match=r"use \[picture\]"):
        localizer.batch("photo.jpg")


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_stream_keeps_order_and_equals_calls(localizer, batch_size):
    images = [artifacts.picture(artifacts.CLASSES[i % 4], (i, 2, i + 50, 60)) for i in range(13)]
    results = list(localizer.stream(iter(images), batch_size=batch_size))
    assert len(results) == 13
    for image, result in zip(images, results, strict=True):
        assert result.box == localizer(image).box


def test_stream_yields_failures_in_place(localizer):
    items = [artifacts.picture("red"), b"rubbish", artifacts.picture("blue"), "no/such.jpg"]
    results = list(localizer.stream(items, batch_size=2))
    assert [type(r) for r in results] == [lidcam_rt.Localization, Failure, lidcam_rt.Localization, Failure]
    assert results[3].path == "no/such.jpg" and "no such file" in str(results[3].error)
    assert isinstance(results[1].error, ImageError)


def test_batch_raises_and_names_the_picture(localizer):
    with pytest.raises(ImageError, match=r"images\[1\]: <7 bytes>"):
        localizer.batch([artifacts.picture("red"), b"rubbish", "no/such.jpg"])
    with pytest.raises(ImageError, match=r"images\[0\]: no/such.jpg: no such file"):
        localizer.batch(["no/such.jpg"])


def _threads():
    return [t for t in threading.enumerate() if t.name.startswith("lidcam-")]


def test_stream_is_lazy_bounded_and_closes(localizer):
    read = itertools.count()
    taken = []

    def endless():
        for i in read:
            taken.append(i)
            yield artifacts.picture()

    stream = localizer.stream(endless(), batch_size=2, ahead=1)
    assert taken == [] and not _threads()
    next(stream)
    assert len(taken) == 4
    for _ in range(10):
        next(stream)
    assert len(taken) <= 11 + 4
    stream.close()
    assert not _threads()


def test_stream_ends_its_threads_on_errors(localizer):
    def broken():
        yield artifacts.picture()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(localizer.stream(broken(), batch_size=1, ahead=0))
    assert not _threads()
    with pytest.raises(InputError, match="labels ended"):
        list(localizer.stream([artifacts.picture()] * 3, labels=[0]))
    assert not _threads()


@pytest.mark.parametrize(
    "option", [{"batch_size": 0}, {"ahead": -1}, {"workers": 0}, {"top_k": 9}, {"refine": 3}]
)
def test_stream_checks_its_options_at_once(localizer, option):
    with pytest.raises(InputError, match=next(iter(option))):
        localizer.stream([], **option)


def test_many_threads_share_one_localizer(localizer):
    images = [artifacts.picture(artifacts.CLASSES[i % 4], (i, i, i + 40, i + 30)) for i in range(24)]
    expected = [localizer(image).box for image in images]
    with ThreadPoolExecutor(8) as pool:
        assert [r.box for r in pool.map(localizer, images * 4)] == expected * 4


def test_use_after_close(model):
    with lidcam_rt.load(model) as opened:
        assert "cpu" in repr(opened)
    opened.close()
    assert opened.closed and "closed" in repr(opened)
    for use in (lambda: opened(artifacts.picture()), lambda: opened.batch([]), lambda: opened.stream([]),
                opened.__enter__):  # fmt: skip
        with pytest.raises(InputError, match="closed"):
            use()


def test_close_while_streaming(model):
    opened = lidcam_rt.load(model)
    stream = opened.stream([artifacts.picture()] * 6, batch_size=1)
    next(stream)
    opened.close()
    assert len(list(stream)) == 5


def test_devices_and_backends_are_checked(model):
    for device in ("gpu", "cuda:x", "cpu:0", "", None):
        with pytest.raises(InputError, match="device must be"):
            lidcam_rt.load(model, device=device)
    with pytest.raises(InputError, match="backend must be"):
        lidcam_rt.load(model, backend="caffe")
    with pytest.raises(InputError, match="threads"):
        lidcam_rt.load(model, threads=-1)
    assert lidcam_rt.load(model, device="cpu", backend="onnxruntime", threads=1).device == "cpu"


def test_no_silent_change_to_the_cpu(model, monkeypatch):
    import onnxruntime as ort

    if "CUDAExecutionProvider" not in ort.get_available_providers():
        with pytest.raises(BackendError, match=r"no CUDA provider.*lidcam-rt\[gpu\]"):
            lidcam_rt.load(model, device="cuda")
    # As a GPU build without a driver does: the provider is offered, and the session comes up on the CPU.
    real = ort.InferenceSession
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda path, sess_options, providers: real(path, sess_options, ["CPUExecutionProvider"]),
    )
    with pytest.raises(BackendError, match="fell back to CPUExecutionProvider"):
        lidcam_rt.load(model, device="cuda:1")
    assert lidcam_rt.load(model, device="auto").device == "cpu"


def test_graph_that_does_not_fit_its_manifest(tmp_path):
    import onnx

    path = artifacts.build(tmp_path / "m.onnx")
    model = onnx.load(path)
    del model.graph.output[4]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="outputs map8 are missing"):
        lidcam_rt.load(path)


def test_load_says_that_it_takes_a_path(model):
    for wrong in (model.read_bytes(), bytearray(b"x"), None, 3, model.open("rb")):
        with pytest.raises(InputError, match=r"load needs the path of an artifact .*: write it to a file"):
            lidcam_rt.load(wrong)


def test_a_damaged_picture_is_localized_on_request(model, tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(artifacts.picture("red")).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:-60])
    with lidcam_rt.load(model, strict=False) as tolerant:
        for result in (tolerant(path), *tolerant.stream([path]), *tolerant.batch([path])):
            assert result.missing == "Premature end of JPEG file" == result.to_dict()["missing"]
        assert tolerant(artifacts.picture("red")).missing is None
        assert "missing" not in tolerant(artifacts.picture("red")).to_dict()
    with lidcam_rt.load(model) as strict, pytest.raises(ImageError, match="strict=False"):
        strict(path)
