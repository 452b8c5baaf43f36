"""The static site in headless Chromium."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import artifacts
import chromium
import numpy as np
import pytest
from PIL import Image

import lidcam_rt
from lidcam_rt.image import read_image
from lidcam_serve.web.site import SiteOptions, write_site

pytestmark = pytest.mark.slow  # not in make quick: servers and a browser

PHOTOS = Path(
    os.environ.get("LIDCAM_IMAGENET_SAMPLE", Path(__file__).parents[3] / "shared" / "data" / "imagenet-sample")
)


class Site:
    """A static server of a folder that remembers what it was asked for.

    Args:
        folder: what it serves.
        isolated: send the headers with which a browser gives threads.
    """

    def __init__(self, folder: Path, *, isolated: bool = False) -> None:
        self.paths: list[str] = []
        paths = self.paths

        class Handler(SimpleHTTPRequestHandler):
            def end_headers(self):
                if isolated:
                    self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                    self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
                super().end_headers()

            def log_message(self, *_):
                paths.append(self.path)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    page = chromium.Page(tmp_path_factory.mktemp("chromium"))
    page.size(1280, 900)
    yield page
    page.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, ort_web):
    site = tmp_path_factory.mktemp("web") / "site"
    write_site(model, site, SiteOptions(ort=ort_web))
    return site


@pytest.fixture(scope="module")
def site(folder):
    running = Site(folder)
    yield running
    running.close()


@pytest.fixture
def page(tab, site):
    open_page(tab, site)
    yield tab
    assert not tab.console
    assert all(url.startswith((site.url, "blob:", "data:")) for url in tab.requests), tab.requests


def open_page(tab, site) -> None:
    tab.console.clear()
    tab.requests.clear()
    tab.go("about:blank")
    tab.go(site.url)
    tab.wait("document.getElementById('model').options.length > 0")


def shows(page, expected) -> None:
    """Wait for a class, and compare what is shown with the runtime's result."""
    page.wait(f"document.getElementById('class').textContent === {expected.class_name!r}")
    assert tuple(int(n) for n in re.findall(r"\d+", page.text("box"))) == (expected.box or ())
    assert page.text("pixels").startswith(f"{np.count_nonzero(expected.mask)} pixels")
    assert page.text("threshold") == f"{round(expected.threshold, 1):g} of 255"


def iou(a, b) -> float:
    """Of two boxes (x0, y0, x1, y1)."""
    width, height = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_pictures_give_the_runtimes_results_and_nothing_is_sent(page, site, pictures, localizer):
    page.choose(*pictures)
    for path in pictures:
        shows(page, localizer(path))
        page.key("ArrowRight")
    assert page.text("ran") == "onnxruntime-web 1.30.0 on wasm, 1 thread, fp32"
    assert page.text("promise") == "They stay in this browser."
    assert page.run("['crf', 'docs', 'engines'].every((id) => document.getElementById(id).hidden)")
    assert {"/model.json", "/tiny.onnx"} <= set(site.paths)
    worker = {url.removeprefix(site.url) for url in page.requests if "ort" in url or "onnx" in url}
    assert "static/ort/ort-wasm-simd-threaded.wasm" in worker  # what the worker asks for is watched too
    before = len(page.requests)
    page.run("document.querySelectorAll('#topk button')[1].click()")
    name = page.run("document.querySelectorAll('#topk span')[1].textContent")
    shows(page, localizer(pictures[3], labels=[artifacts.CLASSES.index(name)]))
    page.key("1")
    shows(page, localizer(pictures[3]))
    page.slide("theta", 0.9)
    page.wait("document.getElementById('threshold').textContent === '229 of 255'")
    assert len(page.requests) == before


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float32", "resize": "letterbox", "size": (64, 96)},
        {"labels": False, "task": "multilabel"},
        {"theta": 0.0, "size": (96, 64)},
    ],
    ids=lambda options: "-".join(options),
)
def test_other_artifacts(tab, tmp_path, ort_web, pictures, options):
    path = artifacts.build(tmp_path / "other.onnx", **options)
    write_site(path, tmp_path / "site", SiteOptions(ort=ort_web, webgpu=False))
    running = Site(tmp_path / "site")
    try:
        with lidcam_rt.load(path) as localizer:
            open_page(tab, running)
            tab.choose(*pictures[:2])
            for picture in pictures[:2]:
                shows(tab, localizer(picture))
                tab.key("ArrowRight")
        assert not tab.console
    finally:
        running.close()


def test_a_site_below_another_folder(tab, folder, pictures, localizer):
    running = Site(folder.parent)
    running.url += f"{folder.name}/"
    try:
        open_page(tab, running)
        tab.choose(pictures[0])
        shows(tab, localizer(pictures[0]))
        assert all(url.startswith((running.url, "blob:", "data:")) for url in tab.requests), tab.requests
    finally:
        running.close()


def test_opened_as_a_file_it_says_why_it_does_not_work(tab, folder, site):
    tab.go((folder / "index.html").as_uri())
    assert "opened as a file" in tab.text("status") and not tab.run("document.getElementById('status').hidden")
    tab.console.clear()  # the browser reports the script that it does not load
    open_page(tab, site)
    tab.wait("document.getElementById('status').textContent === ''")


def test_threads_where_the_page_is_isolated(tab, folder, pictures, localizer):
    running = Site(folder, isolated=True)
    try:
        open_page(tab, running)
        assert tab.run("crossOriginIsolated")
        tab.choose(pictures[0])
        shows(tab, localizer(pictures[0]))
        threads = min(4, tab.run("navigator.hardwareConcurrency"))
        assert f"wasm, {threads} thread" in tab.text("ran")
        assert all(url.startswith((running.url, "blob:", "data:")) for url in tab.requests), tab.requests
    finally:
        running.close()


def test_the_policy_lets_neither_page_nor_worker_send_anything_elsewhere(page, pictures, localizer, tmp_path):
    other = Site(tmp_path)
    try:
        page.choose(pictures[0])
        shows(page, localizer(pictures[0]))
        assert page.workers
        for session in (None, page.workers[0]):
            how = "{method: 'POST', body: 'x', mode: 'no-cors'}"
            assert page.run(f"fetch('{other.url}', {how}).then(() => 'sent', () => 'no')", session) == "no"
        code = f"new Promise((done) => {{ const i = new Image(); i.onerror = () => done('no'); i.src = '{other.url}'}})"
        assert page.run(code) == "no"
        assert not other.paths
    finally:
        other.close()
        page.console.clear()  # the browser reports what it refused
        page.requests.clear()


def test_where_webgpu_does_not_start_webassembly_takes_over(tab, site, pictures, localizer):
    """The page is told that there is an adapter; its worker finds none."""
    code = "Object.defineProperty(navigator, 'gpu', {value: {requestAdapter: async () => ({})}, configurable: true})"
    script = tab.send("Page.addScriptToEvaluateOnNewDocument", source=code)["identifier"]
    try:
        open_page(tab, site)
        assert tab.run("[...document.getElementById('engine').options].map((o) => o.value)") == ["webgpu", "wasm"]
        tab.choose(pictures[0])
        shows(tab, localizer(pictures[0]))
        assert "on wasm" in tab.text("ran") and tab.run("document.getElementById('engines').hidden")
        tab.key("Delete")
        tab.choose(pictures[2])
        shows(tab, localizer(pictures[2]))
    finally:
        tab.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_webgpu_in_software_is_there_to_choose(tmp_path, folder, pictures, localizer):
    """SwiftShader stands in for a GPU; on a busy machine it takes longer to start than the page waits."""
    shutil.copytree(folder, tmp_path / "site")
    script, about = tmp_path / "site" / "static" / "browser.js", tmp_path / "site" / "model.json"
    patience = "const PATIENCE = 60000;"
    assert patience in script.read_text()
    script.write_text(script.read_text().replace(patience, "const PATIENCE = 300000;"))
    site = Site(tmp_path / "site")
    flags = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    page = chromium.Page(tmp_path, *flags)
    try:
        open_page(page, site)
        engines = page.run("[...document.getElementById('engine').options].map((o) => o.value)")
        if "webgpu" not in engines:
            pytest.skip("this chromium has no WebGPU in software")
        assert engines == ["wasm", "webgpu"]
        page.choose(pictures[1])
        shows(page, localizer(pictures[1]))
        assert "on wasm" in page.text("ran")
        page.run(
            "(() => { const s = document.getElementById('engine'); s.value = 'webgpu';"
            " s.dispatchEvent(new Event('change')) })()"
        )
        page.wait("document.getElementById('ran').textContent.includes('on webgpu')")
        shows(page, localizer(pictures[1]))
        code = (
            f"import('{site.url}static/ort/ort.webgpu.min.mjs').then(({{InferenceSession}}) => {{"
            " InferenceSession.prototype.run = async () => { throw new Error('the device was lost') } })"
        )
        for worker in list(page.workers):
            page.run(code, worker)
        page.choose(pictures[2])
        shows(page, localizer(pictures[2]))
        assert "on wasm" in page.text("ran") and page.run("document.getElementById('engines').hidden")
        told = json.loads(about.read_text())
        told["model"]["expected"]["threshold"] += 10  # as if WebGPU computed something else
        about.write_text(json.dumps(told))
        page.send("Network.setCacheDisabled", cacheDisabled=True)
        open_page(page, site)
        page.run("document.getElementById('engine').value = 'webgpu'")
        page.choose(pictures[1])
        shows(page, localizer(pictures[1]))
        assert "on wasm" in page.text("ran") and page.run("document.getElementById('engines').hidden")
        assert not page.console
    finally:
        page.close()
        site.close()


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photos: set LIDCAM_IMAGENET_SAMPLE to their folder")
def test_photos_have_the_runtimes_boxes(tab, tmp_path, ort_web, lite0):
    """Lite0 on 20 photos. The networks round differently, so a few pixels of a mask may differ."""
    paths = sorted(PHOTOS.glob("*.jpg"))[::25][:20]
    write_site(lite0, tmp_path / "site", SiteOptions(ort=ort_web, webgpu=False))
    running = Site(tmp_path / "site")
    try:
        with lidcam_rt.load(lite0) as localizer:
            open_page(tab, running)
            tab.choose(*paths)
            for path in paths:
                expected = localizer(path)
                tab.wait(f"document.getElementById('stage').getAttribute('aria-label').startsWith('{path.name}')")
                assert tab.text("class") == expected.class_name
                box = [int(n) for n in re.findall(r"\d+", tab.text("box"))]
                assert iou(box, expected.box) >= 0.99
                pixels = int(tab.text("pixels").split()[0])
                assert abs(pixels - np.count_nonzero(expected.mask)) <= 1e-3 * expected.mask.size
                tab.key("ArrowRight")
        assert not tab.console
    finally:
        running.close()


def test_a_bad_file_is_said_and_the_next_one_works(page, pictures, localizer, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.choose(tmp_path / "bad.png", pictures[1])
    page.wait("document.getElementById('status').classList.contains('bad')")
    assert "bad.png" in page.text("status")
    page.key("ArrowRight")
    shows(page, localizer(pictures[1]))


def test_a_model_that_is_missing_is_said(tab, folder, tmp_path, pictures):
    shutil.copytree(folder, tmp_path / "site")
    (tmp_path / "site" / "tiny.onnx").unlink()
    running = Site(tmp_path / "site")
    try:
        open_page(tab, running)
        tab.choose(pictures[0])
        tab.wait("document.getElementById('status').textContent.includes('tiny.onnx cannot be loaded')")
    finally:
        running.close()


def photo(seed: int = 0, size: tuple[int, int] = (123, 77)) -> Image.Image:
    """Smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + rng.integers(-12, 13, (size[1], size[0], 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def saved(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def turned(orientation: int, form: str = "jpeg") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(photo(), form, exif=exif)


def swapped_profile() -> bytes:
    """A colour profile in which red and green have changed places."""
    from PIL import ImageCms

    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"xXYZ", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"xXYZ", b"gXYZ", 1)


def with_alpha() -> Image.Image:
    image = photo().convert("RGBA")
    image.putalpha(Image.fromarray(np.random.default_rng(5).integers(0, 256, (77, 123)).astype(np.uint8)))
    return image


#: Pictures, and by how many levels the browser's pixels may differ from the runtime's.
PICTURES = {
    "png": (saved(photo(), "png"), 0),
    "grey png": (saved(photo().convert("L"), "png"), 0),
    "palette": (saved(photo().convert("P"), "png"), 0),
    "lossless webp": (saved(photo(), "webp", lossless=True), 0),
    "gif": (saved(photo(), "gif"), 0),
    "bmp": (saved(photo(), "bmp"), 0),
    "png with a profile": (saved(photo(), "png", icc_profile=swapped_profile()), 0),
    "jpeg with a profile": (saved(photo(), "jpeg", icc_profile=swapped_profile()), 1),
    "transparent png": (saved(with_alpha(), "png"), 1),
    "jpeg 4:4:4": (saved(photo(), "jpeg", quality=95, subsampling=0), 1),
    "jpeg 4:2:0": (saved(photo(), "jpeg", quality=80), 1),
    "progressive jpeg": (saved(photo(), "jpeg", quality=80, progressive=True), 1),
    "grey jpeg": (saved(photo().convert("L"), "jpeg"), 1),
    "orientation 6, png": (turned(6, "png"), 0),
    **{f"orientation {n}": (turned(n), 1) for n in range(2, 9)},
}


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_those_of_the_runtime(page, name):
    data, tolerance = PICTURES[name]
    expected = read_image(data)
    code = (
        "import('/static/picture.js').then(async ({decode}) => {"
        f"const bytes = Uint8Array.from(atob('{base64.b64encode(data).decode()}'), (c) => c.charCodeAt(0));"
        "const {rgb, width, height} = await decode(new Blob([bytes]), 1e6); let text = '';"
        "for (const value of rgb) text += String.fromCharCode(value); return [width, height, btoa(text)] })"
    )
    width, height, pixels = page.run(code)
    assert (height, width) == expected.shape[:2]
    got = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(expected.shape)
    assert np.abs(got.astype(int) - expected).max() <= tolerance
