"""`lidcam web`: the folder it writes, and what it refuses. Most tests have a stand-in for onnxruntime-web."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import artifacts
import numpy as np
import onnx
import pytest

from lidcam_rt.artifact import Manifest
from lidcam_rt.errors import ArtifactError, BackendError, InputError, OutputError
from lidcam_rt.files import file_sha256
from lidcam_serve.web import check, package
from lidcam_serve.web.site import SiteOptions, write_site

ALL = package.WASM_FILES + package.WEBGPU_FILES


@pytest.fixture
def ort(tmp_path, monkeypatch) -> Path:
    """A folder like that of onnxruntime-web, and its checksums as the expected ones."""
    dist = tmp_path / "ort" / "dist"
    dist.mkdir(parents=True)
    for name in ALL:
        (dist / name).write_text(f"this is {name}")
        monkeypatch.setitem(package.SHA256, name, file_sha256(dist / name))
    return dist.parent


@pytest.fixture
def fake_npm(tmp_path, ort, monkeypatch):
    """Puts an npm on the path that packs the folder, or does something else."""

    def make(script: str = "") -> None:
        place = tmp_path / "bin"
        place.mkdir()
        pack = f'shift 3; tar czf "$1/onnxruntime-web.tgz" -C {ort} --transform s,^,package/, dist'
        (place / "npm").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{script or pack}\n')
        (place / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")

    return make


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def archive(ort: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as file:
        file.add(ort, "package")
    return path


@pytest.mark.parametrize("form", ["folder", "archive", "npm"])
def test_the_folder(tmp_path, model, localizer, ort, fake_npm, form):
    fake_npm()
    given = {"folder": ort, "archive": archive(ort, tmp_path / "ort.tgz"), "npm": None}[form]
    files = write_site(model, tmp_path / "out" / "site", SiteOptions(ort=given))
    written = tree(tmp_path / "out" / "site")
    assert {path: len(data) for path, data in written.items()} == files
    assert {f"static/ort/{name}" for name in (*ALL, "LICENSE")} <= set(files)
    assert written["tiny.onnx"] == model.read_bytes()
    told = json.loads(written["model.json"])
    assert told["files"] == sorted(files)
    assert told["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert told["model"]["classes"] == list(artifacts.CLASSES)
    outputs = localizer.pipeline.run([localizer.pipeline.prepare(check.pattern(64, 64))])
    assert np.allclose(told["model"]["expected"]["logits"], outputs["logits"][0], atol=1e-3)
    assert told["model"]["expected"]["threshold"] == outputs["threshold"][0, 0]
    assert "MIT" in written["static/ort/LICENSE"].decode() and "@" not in written["README.md"].decode()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["site"]
    if form == "npm":
        assert (tmp_path / "asked").read_text().startswith(f"pack onnxruntime-web@{package.VERSION} ")
    else:
        assert not (tmp_path / "asked").exists()


def test_no_script_or_style_comes_from_elsewhere(tmp_path, model, ort):
    write_site(model, tmp_path / "site", SiteOptions(ort=ort))
    page = (tmp_path / "site" / "index.html").read_text()
    assert "connect-src 'self'" in page and "http://" not in page.replace("http-equiv", "") and "https://" not in page
    for path in (tmp_path / "site" / "static").glob("*"):
        if path.is_file():
            assert "://" not in path.read_text(), path.name


def test_it_is_the_page_of_the_server(tmp_path, model, ort):
    """One source of the page: the files are the server's, but for policy, source of results and first text."""
    page, site = Path(package.__file__).parents[1] / "page", tmp_path / "site"
    write_site(model, site, SiteOptions(ort=ort))
    for name in ("page.js", "pas.js", "page.css"):
        assert (site / "static" / name).read_bytes() == (page / name).read_bytes()
    lines = [(path / "index.html").read_text().splitlines() for path in (site, page)]
    policy, script, status = [line for line in lines[0] if line not in lines[1]]
    assert "Content-Security-Policy" in policy and "static/browser.js" in script and 'id="status"' in status


def test_an_earlier_site_is_replaced_whole(tmp_path, model, ort):
    site = tmp_path / "site"
    site.mkdir()  # an empty folder will do
    write_site(model, site, SiteOptions(ort=ort, name="first"))
    files = write_site(model, site, SiteOptions(ort=ort, name="second", webgpu=False))
    assert set(tree(site)) == set(files)
    assert "second.onnx" in files and "first.onnx" not in files
    assert not set(files) & {f"static/ort/{name}" for name in package.WEBGPU_FILES}


@pytest.mark.parametrize("what", ["other files", "a file among the site's", "a broken list", "a file"])
def test_a_folder_with_other_files_is_refused_and_kept(tmp_path, model, ort, what):
    site = tmp_path / "site"
    if what == "a file":
        site.write_text("mine")
    else:
        site.mkdir()
        if what == "a file among the site's":
            write_site(model, site, SiteOptions(ort=ort))
        if what == "a broken list":
            (site / "model.json").write_text('{"lidcam_site": 1, "files": 3}')
        (site / "mine.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"site: (holds other files|is a file)"):
        write_site(model, site, SiteOptions(ort=ort))
    assert tree(tmp_path) == before


def test_a_folder_that_another_process_writes_is_refused(tmp_path, model, ort):
    with (tmp_path / ".site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process is writing it"):
            write_site(model, tmp_path / "site", SiteOptions(ort=ort))
    assert not (tmp_path / "site").exists()


def test_what_a_killed_writer_left_goes(tmp_path, model, ort):
    left = tmp_path / ".site.part" / "npm"
    left.mkdir(parents=True)
    (left / "half.tgz").write_bytes(b"x")
    write_site(model, tmp_path / "site", SiteOptions(ort=ort))
    assert not (tmp_path / ".site.part").exists()


def test_the_same_inputs_give_the_same_bytes(tmp_path, model, ort):
    for name in ("a", "b"):
        write_site(model, tmp_path / name, SiteOptions(ort=ort, name="m"))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda ort: (ort / "dist" / ALL[0]).write_text("other"), "is not from version"),
        (lambda ort: (ort / "dist" / ALL[1]).unlink(), f"has no dist/{ALL[1]}"),
        (lambda ort: shutil.rmtree(ort), "cannot be read"),
    ],
    ids=["changed", "incomplete", "missing"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_another_package_is_refused(tmp_path, model, ort, spoil, message, packed):
    if packed and message == "cannot be read":
        path = tmp_path / "ort.tgz"
        archive(ort, path).write_bytes(path.read_bytes()[:-40])
    else:
        spoil(ort)
        path = archive(ort, tmp_path / "ort.tgz") if packed else ort
    with pytest.raises(InputError, match=message):
        write_site(model, tmp_path / "site", SiteOptions(ort=path))
    assert not list(tmp_path.glob("*site*")) and not list(tmp_path.glob(".site*"))


def test_an_archive_writes_nothing_by_itself(tmp_path, model, ort):
    """Its members have names; only the contents of those that are known are read."""
    path = tmp_path / "ort.tgz"
    with tarfile.open(path, "w:gz") as file:
        file.add(ort, "package")
        for name in ("../evil", f"{tmp_path}/lidcam-evil", f"package/dist/../../{ALL[0]}"):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            file.addfile(entry, io.BytesIO(b"evil"))
        link = tarfile.TarInfo(f"package/dist/{ALL[0]}")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    write_site(model, tmp_path / "site", SiteOptions(ort=path))
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("script", "message"),
    [("echo 'npm error network' >&2; exit 1", "npm error network"), ("exit 0", "could not fetch")],
)
def test_a_registry_that_does_not_answer_is_said(tmp_path, model, fake_npm, script, message):
    fake_npm(script)
    with pytest.raises(BackendError, match=f"{message}.*--ort"):
        write_site(model, tmp_path / "site", SiteOptions())
    assert not list(tmp_path.glob("*site*")) and not list(tmp_path.glob(".site*"))


def test_without_npm_the_way_out_is_said(tmp_path, model, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match=r"npm.* is not installed.*--ort"):
        write_site(model, tmp_path / "site", SiteOptions())


def test_other_models_are_refused(tmp_path, model, ort):
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError):
        write_site(tmp_path / "other.onnx", tmp_path / "site", SiteOptions(ort=ort))
    with pytest.raises(ArtifactError, match=r"is not an \.onnx file"):
        write_site(tmp_path / "x.engine", tmp_path / "site", SiteOptions(ort=ort))
    assert not (tmp_path / "site").exists()


def test_a_segmentation_network_is_refused_with_the_way_out(tmp_path, model, ort, model_manifest):
    raw = model_manifest.model_dump(exclude_none=True) | {"task": "segmentation", "schema_version": 2, "top_k": 1}
    del raw["cam"]
    manifest = Manifest.model_validate({**raw, "labels_input": False, "segmentation": {"stride": 4}})
    graph = onnx.load(model)
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, manifest.to_metadata())
    onnx.save(graph, tmp_path / "segments.onnx")
    with pytest.raises(InputError, match=r"segmentation network.*lidcam serve"):
        write_site(tmp_path / "segments.onnx", tmp_path / "site", SiteOptions(ort=ort))


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from lidcam_cli.main import main; main()"
    command = [sys.executable, "-c", code, "web", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment})


@pytest.mark.slow
def test_the_command(tmp_path, model, ort_web):
    done = run(model, "-o", "site", "--ort", ort_web, "--name", "m", "--no-webgpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "unchanged" in done.stdout and "http.server" in done.stdout
    assert (tmp_path / "site" / "m.onnx").read_bytes() == model.read_bytes()


@pytest.mark.slow
def test_after_kill_9_the_next_run_leaves_nothing_of_the_first(tmp_path, model, ort_web):
    place = tmp_path / "bin"
    place.mkdir()
    (place / "npm").write_text(f'#!/bin/sh\necho half > "$4/half.tgz"\ntouch {tmp_path}/fetching\nexec sleep 600\n')
    (place / "npm").chmod(0o755)
    code = "from lidcam_cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "web", str(model), "-o", "out/site"],
        cwd=tmp_path, env={**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 300
    while not (tmp_path / "fetching").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "out" / ".site.part" / "npm" / "half.tgz").exists() and not (tmp_path / "out" / "site").exists()
    done = run(model, "-o", "out/site", "--ort", ort_web, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["site"]
    assert "npm" not in {path.name for path in (tmp_path / "out" / "site").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("--ort", "missing"), 2), ((), 5), (("--ort", "missing", "-o", "taken"), 6), (("--name", "../x"), 2)],
)
def test_exit_statuses(tmp_path, model, arguments, status):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    done = run(model, "-o", "site", *arguments, cwd=tmp_path, PATH=str(tmp_path))
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "site").exists()


def test_an_artifact_that_is_missing_ends_with_3(tmp_path):
    assert run("missing.onnx", "-o", "site", cwd=tmp_path).returncode == 3
