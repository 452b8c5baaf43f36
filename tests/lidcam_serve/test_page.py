"""The page, in headless Chromium."""

from __future__ import annotations

import io
import json
import re

import artifacts
import chromium
import numpy as np
import pytest
from PIL import Image
from servers import Server, png

from lidcam_rt.boxes import largest_box
from lidcam_rt.interop import coco_rle

pytestmark = pytest.mark.slow  # not in make quick: servers and a browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    page = chromium.Page(tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()


@pytest.fixture(scope="module")
def site(model):
    running = Server(model, "--queue", "100")
    yield running.url
    assert running.end() == 0


@pytest.fixture
def page(tab, site):
    tab.console.clear()
    tab.requests.clear()
    tab.size(1280, 900)
    tab.go(site + "/")
    tab.wait("document.getElementById('model').options.length > 0")
    yield tab
    assert not tab.console
    assert all(url.startswith((site, "blob:", "data:")) for url in tab.requests), tab.requests


def box_of(page) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", page.text("box")))


def shown(page, name: str) -> None:
    page.wait(f"document.getElementById('class').textContent === {name!r} && !document.getElementById('work').hidden")


@pytest.mark.parametrize("how", ["choose", "drop"])
def test_a_picture_gives_the_runtimes_box(page, pictures, localizer, how):
    getattr(page, how)(*pictures)
    shown(page, "red")
    for number, path in enumerate(pictures):
        expected = localizer(path)
        shown(page, expected.class_name)
        assert box_of(page) == expected.box
        assert page.text("pixels").startswith(f"{np.count_nonzero(expected.mask)} pixels")
        assert page.run("document.querySelectorAll('#pictures [aria-selected=true]').length") == 1
        if number + 1 < len(pictures):
            page.key("ArrowRight")
    page.key("Delete")
    shown(page, "blue")
    assert page.run("document.querySelectorAll('#pictures [role=option]').length") == 3


def test_a_pasted_picture(page):
    page.run(
        f"(() => {{ const data = new DataTransfer(); const bytes = Uint8Array.from({list(png('blue'))});"
        "data.items.add(new File([bytes], 'pasted.png', {type: 'image/png'}));"
        "dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true})) })()"
    )
    shown(page, "blue")


def test_the_sliders_recompute_pas(page, pictures, localizer):
    """The page's threshold, mask and box at other settings, against numpy's percentile of the network's own map."""
    page.choose(pictures[1])
    shown(page, "green")
    prepared = localizer.pipeline.prepare(pictures[1])
    map8 = localizer.pipeline.run([prepared])["map8"][0, 0]
    plain = localizer(pictures[1])
    before = len(page.requests)
    for percentile, theta in ((100, 0.6), (90, 0.35), (50, 0.9), (75.5, 0.2), (100, 1), (0, 0)):
        page.slide("percentile", percentile)
        page.slide("theta", theta)
        threshold = int(theta * np.percentile(map8, percentile))
        mask = plain.map > threshold
        page.wait(f"document.getElementById('threshold').textContent === '{threshold} of 255'")
        assert page.text("pixels").startswith(f"{np.count_nonzero(mask)} pixels")
        assert box_of(page) == (largest_box(mask) or ())
    page.run("document.getElementById('reset').click()")
    assert box_of(page) == plain.box
    assert len(page.requests) == before  # no request was made for it


def test_other_classes_by_click_and_by_key(page, pictures, localizer):
    page.choose(pictures[0])
    shown(page, "red")
    names = page.run("[...document.querySelectorAll('#topk span')].map((e) => e.textContent)")
    assert names == [entry.class_name for entry in localizer(pictures[0]).topk]
    page.run("document.querySelectorAll('#topk button')[1].click()")
    shown(page, names[1])
    assert box_of(page) == (localizer(pictures[0], labels=[artifacts.CLASSES.index(names[1])]).box or ())
    page.key("1")
    shown(page, "red")


def test_before_and_after_the_crf(page, pictures, localizer):
    expected = localizer(pictures[3], refine="psa")
    page.choose(pictures[3])
    shown(page, "yellow")
    page.run(
        "(() => { const s = document.getElementById('refine'); s.value = 'psa';"
        " s.dispatchEvent(new Event('change')) })()"
    )
    page.wait("!document.getElementById('sides').hidden")
    assert box_of(page) == expected.box and page.run("document.getElementById('pas').disabled")
    page.key("c")
    assert box_of(page) == expected.unrefined.box and not page.run("document.getElementById('pas').disabled")


def test_downloads(page, pictures, localizer):
    expected = localizer(pictures[2])
    page.choose(pictures[2])
    shown(page, "blue")
    page.run(
        "(() => { const make = URL.createObjectURL; URL.createObjectURL = (blob) => { const url = make(blob);"
        " blob.arrayBuffer().then((b) => { window.saved = [...new Uint8Array(b)] }); return url };"
        " HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download } })()"
    )

    def saved(button: str) -> tuple[str, bytes]:
        page.run(f"window.saved = window.savedAs = null; document.getElementById('{button}').click()")
        page.wait("!!window.saved && !!window.savedAs")
        return page.run("window.savedAs"), bytes(page.run("window.saved"))

    name, data = saved("save-mask")
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    assert name == "blue_mask.png" and np.array_equal(picture > 0, expected.mask)
    name, data = saved("save-json")
    result = json.loads(data)
    assert name == "blue.json" and result["box"] == list(expected.box) and result["mask"] == coco_rle(expected.mask)
    name, data = saved("save-coco")
    assert name == "blue_coco.json" and json.loads(data) == [expected.to_coco()]


def test_boxes_and_run_lengths_are_the_runtimes(page):
    rng = np.random.default_rng(1)
    masks = [rng.random((h, w)) < p for h, w in ((1, 1), (1, 9), (9, 1), (13, 17)) for p in (0, 0.05, 0.3, 0.6, 0.9, 1)]
    rings = np.zeros((12, 30), bool)
    rings[1:10, 1:10] = True
    rings[2:9, 2:9] = False  # an empty ring is larger than the full square beside it: the contour counts
    rings[2:9, 14:20] = True
    for mask in [*masks, rings]:
        h, w = mask.shape
        code = (
            f"import('/static/pas.js').then((pas) => {{ const m = Uint8Array.from({mask.ravel().astype(int).tolist()});"
            f" return [pas.largestBox(m, {w}, {h}), pas.cocoRle(m, {w}, {h})] }})"
        )
        box, rle = page.run(code)
        assert (box and tuple(box)) == largest_box(mask) and rle == coco_rle(mask)


def test_a_bad_file_is_said_and_the_next_one_works(page, pictures, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(pictures[0].read_bytes()[:-60])
    page.choose(bad, pictures[0])
    page.wait("document.getElementById('status').classList.contains('bad')")
    assert "bad.png" in page.text("status")
    page.key("ArrowRight")
    shown(page, "red")
    page.console.clear()  # the browser reports the 422 itself


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(page, pictures, dark):
    page.size(360, 740, dark=dark, mobile=True)
    page.choose(pictures[0])
    shown(page, "red")
    assert page.run("document.documentElement.scrollWidth") <= 360
    small = page.run(
        "[...document.querySelectorAll('button, select, .button')].filter((e) => e.offsetParent"
        " && e.getBoundingClientRect().height < 32).map((e) => e.outerHTML)"
    )
    assert not small
    colours = page.run("(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))")
    text, back = (sum(int(v) for v in re.findall(r"\d+", colour)[:3]) / 3 for colour in colours)
    assert (text > back) == dark and abs(text - back) > 150


def test_a_token_is_asked_for(tab, model):
    server = Server(model, env={"LIDCAM_TOKEN": "correct horse"})
    try:
        tab.go(server.url + "/")
        tab.wait("!document.getElementById('login').hidden")
        tab.run(
            "document.getElementById('token').value = 'correct horse'; document.getElementById('login').requestSubmit()"
        )
        tab.wait("document.getElementById('model').options.length > 0")
    finally:
        server.end()


def test_the_list_of_addresses(page, site):
    page.go(site + "/docs")
    page.wait("!!document.querySelector('section')")
    assert "/v1/localize" in page.run("document.body.innerText")


def renamed(model, path, names):
    """The tiny artifact with other names of classes."""
    onnx = pytest.importorskip("onnx")
    from lidcam_rt.artifact import read_manifest

    manifest = read_manifest(model).model_copy(update={"class_names": names})
    graph = onnx.load(model)
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, manifest.to_metadata())
    onnx.save(graph, path)
    return path


@pytest.fixture(scope="module")
def named(model, tmp_path_factory):
    """A server of artifacts whose classes have awkward names, taking bodies of up to 20 kB."""
    folder = tmp_path_factory.mktemp("named")
    digits = renamed(model, folder / "digits.onnx", ("1", "0", "3", "2"))
    html = renamed(model, folder / "html.onnx", ("<img src=x onerror=boom()>", "a, b", "crane", "crane"))
    running = Server(digits, html, "--queue", "100", "--max-body", "20000")
    yield running.url
    assert running.end() == 0


@pytest.fixture
def awkward(tab, named):
    tab.console.clear()
    tab.size(1280, 900)
    tab.go(named + "/")
    tab.wait("document.getElementById('model').options.length === 2")
    yield tab
    assert not tab.console


@pytest.mark.parametrize("model_number", [0, 1])
def test_names_of_classes_are_text_whatever_they_are(awkward, pictures, model_number, localizer):
    """Numbers that are other classes' numbers, HTML, commas, and one name twice."""
    page = awkward
    page.run(
        f"(() => {{ const s = document.getElementById('model'); s.value = {model_number};"
        " s.dispatchEvent(new Event('change')) })()"
    )
    page.choose(pictures[0])
    page.wait("document.querySelectorAll('#topk button').length === 4")
    ranked = [entry.class_id for entry in localizer(pictures[0]).topk]
    for rank, class_id in enumerate(ranked):
        page.run(f"document.querySelectorAll('#topk button')[{rank}].click()")
        page.wait(f"document.querySelectorAll('#topk button')[{rank}].getAttribute('aria-pressed') === 'true'")
        assert page.text("class") == page.run(f"document.querySelectorAll('#topk span')[{rank}].textContent")
        assert box_of(page) == (localizer(pictures[0], labels=[class_id]).box or ())
    assert not page.run("document.querySelectorAll('main img:not(#pictures img)').length")


def test_a_file_that_is_too_large_is_not_sent(awkward, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    before = len(awkward.requests)
    awkward.choose(tmp_path / "large.png")
    awkward.wait("document.getElementById('status').textContent.includes('more than the 0.0 MB that the server')")
    assert not [url for url in awkward.requests[before:] if "localize" in url]


def test_large_pictures_are_kept_no_larger_than_they_are_shown(page, tmp_path, localizer):
    path = tmp_path / "large.png"
    path.write_bytes(png("green", size=(3000, 1500), box=(300, 300, 1500, 1200)))
    page.run(
        "(() => { const make = createImageBitmap; window.made = []; window.createImageBitmap = async (...all) => {"
        " const bitmap = await make(...all); window.made.push(bitmap); return bitmap } })()"
    )
    page.choose(path)
    shown(page, "green")
    assert box_of(page) == localizer(path).box
    sides = page.run("window.made.map((bitmap) => Math.max(bitmap.width, bitmap.height))")  # 0: closed
    assert len(sides) == 3 and sorted(sides) == [0, 0, 1280]


def test_a_picture_is_removed_without_a_keyboard(page, pictures):
    assert page.run("document.getElementById('remove').hidden")
    page.choose(pictures[0], pictures[1])
    shown(page, "red")
    page.run("document.getElementById('remove').click()")
    shown(page, "green")
    page.run("document.getElementById('remove').click()")
    page.wait("document.getElementById('work').hidden && document.getElementById('remove').hidden")
