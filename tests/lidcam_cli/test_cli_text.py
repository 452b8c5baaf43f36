"""Names that come from data cannot steer the terminal, end a command, or get lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import artifacts
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lidcam_cli.gallery import gallery
from lidcam_rt.artifact import DIGEST_KEY, MANIFEST_KEY, Manifest, read_manifest
from lidcam_rt.text import encode_text, plain

LIDCAM = [sys.executable, "-c", "from lidcam_cli.main import main; main()"]
NASTY = ("[/bold]", "[red]a[/red]", "\x1b[31mred\x1b]0;title\x07", "a\nb", "50% $x$ \\frac", "\u202edekcah", ":smile:")


def lidcam(*arguments, cwd: Path, **environment) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [*LIDCAM, *map(str, arguments)],
        capture_output=True, cwd=cwd, timeout=300,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb", **environment},
    )  # fmt: skip
    assert b"Traceback" not in done.stderr + done.stdout and b"MarkupError" not in done.stderr
    for stream in (done.stdout, done.stderr):
        assert not {byte for byte in stream if byte < 32} - {10}, stream
    return done


@given(st.text())
def test_plain_text_controls_nothing(text):
    shown = plain(text)
    assert all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") for c in shown)
    shown.encode()
    assert plain(shown) == shown and text.count("\n") == shown.count("\n")


def test_plain_text_stays_as_it_is():
    for text in ("a b.jpg", "日本語.png", "Ångström", "[export]", "naïve — “quoted”", "a\nb"):
        assert plain(text) == text
    assert plain("\x1b[31m") == "\\x1b[31m" and plain("\udcff.jpg") == "\\xff.jpg" and plain("\ud800") == "\\ud800"


@given(st.binary())
def test_names_of_files_round_trip(name):
    assert encode_text(os.fsdecode(name)) == name


@given(st.text(alphabet=st.characters(categories=["Cs", "L"])))
def test_any_text_can_be_written(text):
    assert isinstance(encode_text(text), bytes)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> Path:
    """An artifact whose classes have the nasty names."""
    path = artifacts.build(tmp_path_factory.mktemp("artifact") / "nasty.onnx")
    model = onnx.load(path)
    manifest = read_manifest(path).model_copy(update={"class_names": NASTY[:4]})
    entries = Manifest.model_validate(manifest.model_dump()).to_metadata()
    del model.metadata_props[:]
    for key in (MANIFEST_KEY, DIGEST_KEY):
        model.metadata_props.add(key=key, value=entries[key])
    onnx.save(model, path)
    return path


def data_set(folder: Path) -> Path:
    """Pictures with nasty names, one of them in bytes that are not UTF-8; masks."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    names = [os.fsdecode(b"\xff\xfe"), *NASTY]
    for name, colour in zip(names, (*artifacts.CLASSES, *artifacts.CLASSES), strict=True):
        name = name.replace("/", "%")
        try:
            Image.fromarray(artifacts.picture(colour)).save(folder / "images" / f"{name}.png")
        except OSError:
            continue  # a file system that takes UTF-8 only
        picture = artifacts.picture(colour)
        mask = Image.fromarray((picture == artifacts.COLOURS[colour]).all(axis=2))
        mask.save(folder / "masks" / f"{name}.png")
    (folder / "classes.txt").write_text("\n".join(f"class {i}" for i in range(4)))
    return folder


@pytest.mark.slow
def test_localize_and_its_gallery(nasty, tmp_path):
    folder = data_set(tmp_path / "set")
    names = {path.name for path in (folder / "images").iterdir()}
    (folder / "images" / "\x1b[2Jbroken.png").write_bytes(b"nothing")
    done = lidcam("localize", nasty, folder / "images", "-o", "out", "--html", "--map", cwd=tmp_path)
    assert done.returncode == 8 and b"\\x1b[2Jbroken.png" in done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert {Path(record["image"]).name for record in results} == names
    assert {record["class_name"] for record in results} == set(NASTY[:4])
    assert all((tmp_path / "out" / name).is_file() for record in results for name in record["files"].values())
    again = lidcam("localize", nasty, folder / "images", "-o", "out", "--html", "--map", cwd=tmp_path)
    assert f"{len(names)} of {len(names) + 1} pictures are already done".encode() in again.stderr

    seen = []

    class Page(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, dict(attrs)))

    Page().feed((tmp_path / "out" / "index.html").read_text())
    known = {"html", "meta", "title", "style", "h1", "h2", "p", "main", "figure", "img", "figcaption"}
    assert {tag for tag, _ in seen} <= known | {"b", "br", "small", "ul", "li"}
    pictures = [attributes for tag, attributes in seen if tag == "img"]
    assert len(pictures) == len(names) and all((tmp_path / "out" / entry["src"]).is_file() for entry in pictures)
    lines = lidcam("localize", nasty, folder / "images", "-o", "lines", "--jsonl", cwd=tmp_path, LC_ALL="C")
    images = [json.loads(line)["image"] for line in lines.stdout.splitlines()]
    assert {Path(image).name for image in images} == names | {"\x1b[2Jbroken.png"}


@pytest.mark.slow
def test_eval_keeps_the_names(nasty, tmp_path):
    pytest.importorskip("matplotlib")
    folder = data_set(tmp_path / "set")
    done = lidcam(
        "eval", nasty, "--data", folder, "-o", "out", "--replicates", "5", "--metrics", "track3,wsol", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "out" / "images.csv").read_bytes()
    for path in (folder / "images").iterdir():
        assert os.fsencode(path.name) in table
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_inspect_and_lists_of_names(nasty, tmp_path):
    assert lidcam("inspect", nasty, cwd=tmp_path).returncode == 0
    (tmp_path / "\x1b[31m[bold]x").mkdir()
    for argument in ("\x1b[31m[bold]x", "[/bold].jpg", "a\nb.jpg", b"\xff.jpg", "\u202e.png"):
        done = lidcam("localize", nasty, os.fsdecode(argument), "-o", "out", cwd=tmp_path)
        assert done.returncode in (2, 8)
    listed = subprocess.run(
        [*LIDCAM, "localize", str(nasty), "-", "-o", "list"], input=b"\xff\xfe.png\n", capture_output=True, cwd=tmp_path
    )
    assert listed.returncode == 8 and b"\\xff\\xfe.png: no such file" in listed.stderr


@pytest.mark.parametrize("extra", ["export", "train"])
def test_the_name_of_an_extra_is_shown(extra, monkeypatch):
    from typer.testing import CliRunner

    from lidcam_cli import app

    monkeypatch.setattr(app, "missing_modules", lambda name: ("torch",) if name == extra else ())
    shown = CliRunner().invoke(app.build_app(), ["--help"]).output
    assert f"(needs: pip install 'lidcam-rt[{extra}]')" in shown
    verb = {"export": "build", "train": "train"}[extra]
    done = CliRunner().invoke(app.build_app(), [verb, "x", "--y"])
    assert done.exit_code == 7


def test_the_gallery_of_anything():
    record = {"image": "a/<b>.png", "class_name": "<script>", "score": 0.5, "box": None}
    record["files"] = {"overlay": "x#?.jpg"}
    page = gallery([record, {"image": "c", "error": "E", "message": "<i>"}], title="<t>", about="&").decode()
    assert "<script>" not in page and "&lt;script&gt;" in page and 'src="x%23%3F.jpg"' in page and "&lt;i&gt;" in page


@pytest.mark.slow
def test_the_command_that_installs_an_extra_works_in_a_checkout():
    """pip takes the extra of what is installed, from wherever that came."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--no-deps", "lidcam-rt[heif]"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "Requirement already satisfied: lidcam-rt[heif]" in done.stdout, done.stderr
