"""Every client gets what `lidcam localize` writes: tritonclient, curl and the page, idle and under load."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import artifacts
import chromium
import numpy as np
import pytest
from servers import PATIENCE, Server, png

from lidcam_rt.interop import coco_rle

pytestmark = pytest.mark.slow  # not in make quick: servers and a browser

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
PHOTOS = Path(
    os.environ.get("LIDCAM_IMAGENET_SAMPLE") or Path(__file__).parents[3] / "shared" / "data" / "imagenet-sample"
)
COUNT = 50
Answer = tuple[str, tuple[int, ...], str]
"""Class, box and mask as COCO's run lengths."""


@pytest.fixture(scope="module", params=["made", "photos"])
def pictures(request, tmp_path_factory, model) -> tuple[Path, list[Path]]:
    """An artifact and 50 pictures for it."""
    folder = tmp_path_factory.mktemp(request.param) / "pictures"
    folder.mkdir()
    if request.param == "photos":
        if not PHOTOS.is_dir():
            pytest.skip("no photos: set LIDCAM_IMAGENET_SAMPLE to their folder")
        model = request.getfixturevalue("lite0")
        for path in sorted(PHOTOS.glob("*.jpg"))[::10][:COUNT]:
            shutil.copy(path, folder)
    else:
        for i in range(COUNT):
            left, top = i % 7 * 9, i % 5 * 6
            data = png(artifacts.CLASSES[i % 4], box=(left, top, left + 40 + i % 3 * 10, top + 30 + i % 4 * 5))
            (folder / f"{i:02}.png").write_bytes(data)
    return model, sorted(folder.iterdir())


@pytest.fixture(scope="module")
def written(pictures, tmp_path_factory) -> list[Answer]:
    """What `lidcam localize` writes."""
    model, paths = pictures
    out = tmp_path_factory.mktemp("localized") / "run"
    code = "from lidcam_cli.main import main; main()"
    command = [sys.executable, "-c", code, "localize", model, paths[0].parent, "-o", out, "--quiet"]
    subprocess.run([str(part) for part in command], check=True)
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return [answer_of(row, out) for row in sorted(rows, key=lambda row: row["image"])]


def answer_of(row: dict, out: Path) -> Answer:
    from PIL import Image

    with Image.open(out / row["files"]["mask"]) as mask:
        return row["class_name"], tuple(row["box"]), coco_rle(np.asarray(mask) > 0)["counts"]


@pytest.fixture(scope="module")
def served(pictures):
    running = Server(f"m={pictures[0]}", "--queue", "100")
    yield running
    assert running.end() == 0


@contextmanager
def load(url: str, paths: list[Path]):
    """Three other clients, each with a request under way all the time."""
    over, sent = threading.Event(), threading.Semaphore(0)

    def send(number: int) -> None:
        with httpx.Client(timeout=PATIENCE) as client:
            while not over.is_set():
                assert client.post(f"{url}/v1/localize", content=paths[number].read_bytes()).status_code == 200
                sent.release()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert sent.acquire(timeout=PATIENCE)
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def by_curl(server: Server, path: Path) -> Answer:
    form = ["-F", f"image=@{path}", f"{server.url}/v1/localize?mask=1"]
    done = subprocess.run(["curl", "-sS", "--fail-with-body", *form], capture_output=True, check=True)
    row = json.loads(done.stdout)
    return row["class_name"], tuple(row["box"]), row["mask"]["counts"]


def by_tritonclient(module, client, path: Path) -> Answer:
    picture = module.InferInput("picture", [1], "BYTES")
    picture.set_data_from_numpy(np.array([path.read_bytes()], object))
    wanted = [module.InferRequestedOutput(name) for name in ("class_name", "box", "mask")]
    answer = client.infer("m_pictures", [picture], outputs=wanted)
    name, box, mask = (answer.as_numpy(key)[0, 0] for key in ("class_name", "box", "mask"))
    return name.decode(), tuple(int(side) for side in box), coco_rle(mask > 0)["counts"]


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "under load"])
class TestClients:
    """Class, box and mask, picture by picture."""

    @pytest.fixture(autouse=True)
    def others(self, busy, served, pictures):
        if not busy:
            yield
            return
        with load(served.url, pictures[1]):
            yield

    @pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
    def test_curl(self, served, pictures, written):
        assert [by_curl(served, path) for path in pictures[1]] == written

    @pytest.mark.parametrize("protocol", ["http", "grpc"])
    def test_tritonclient(self, served, pictures, written, protocol):
        module = pytest.importorskip(f"tritonclient.{protocol}", reason="tritonclient is not installed")
        with module.InferenceServerClient(served.address if protocol == "http" else served.grpc) as client:
            assert [by_tritonclient(module, client, path) for path in pictures[1]] == written

    def test_the_page(self, served, pictures, written, tmp_path):
        page = chromium.Page(tmp_path)
        try:
            page.go(served.url + "/")
            page.wait("document.getElementById('model').options.length > 0")
            page.choose(*pictures[1])
            for path, (name, box, _) in zip(pictures[1], written, strict=True):
                page.wait(f"document.getElementById('stage').getAttribute('aria-label').startsWith('{path.name}')")
                assert page.text("class") == name
                assert tuple(int(number) for number in re.findall(r"\d+", page.text("box"))) == box
                page.key("ArrowRight")
            assert not page.console
        finally:
            page.close()
