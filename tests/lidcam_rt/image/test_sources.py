from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lidcam_rt.errors import ImageError
from lidcam_rt.image import describe, read_image

PHOTO = np.asarray(
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize(
        (90, 60), Image.Resampling.BICUBIC
    )
)
PNG = io.BytesIO()
Image.fromarray(PHOTO).save(PNG, "PNG")


def test_paths_that_are_no_pictures(tmp_path):
    for source, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "none.jpg", "no such file"),
        ("https://example.org/a.jpg", "not fetched"),
        ("/dev/null", "not a regular file"),
        ("a\0b", "no such file|not a path"),
        ("\udcff.jpg", r"^\udcff\.jpg: no such file"),
        (None, "not a picture"),
        (3.5, "not a picture"),
    ):
        with pytest.raises(ImageError, match=says):
            read_image(source)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 4, 3), np.float32), "must be uint8"),
        (np.zeros((3, 4, 5), np.uint8), "channels come last"),
        (np.zeros((2, 4, 4, 3), np.uint8), "localizer.batch"),
        (np.zeros((4,), np.uint8), "must have shape"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
    ],
)
def test_bad_arrays(array, says):
    with pytest.raises(ImageError, match=says):
        read_image(array)


def test_open_files(tmp_path):
    path = tmp_path / "p.png"
    path.write_bytes(PNG.getvalue())
    with path.open("rb") as file:
        assert describe(file) == str(path)
        np.testing.assert_array_equal(read_image(file), PHOTO)
        with pytest.raises(ImageError, match=r"already read to its end.*seek\(0\)"):
            read_image(file)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(file)
    np.testing.assert_array_equal(read_image(io.BytesIO(PNG.getvalue())), PHOTO)
    with pytest.raises(ImageError, match="the file is empty"):
        read_image(io.BytesIO())
    for text in (io.StringIO("text"), path.open(encoding="latin-1")):
        with pytest.raises(ImageError, match="opened as text"):
            read_image(text)
    with path.open("ab") as file, pytest.raises(ImageError, match="cannot be read"):
        read_image(file)


def test_tensors():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(PHOTO.copy())
    np.testing.assert_array_equal(read_image(tensor), PHOTO)
    np.testing.assert_array_equal(read_image(tensor[..., 0]), np.repeat(PHOTO[..., :1], 3, 2))
    assert describe(tensor) == "<Tensor uint8 60x90x3>"
    for wrong, says in (
        (tensor.permute(2, 0, 1), r"tensor\.permute\(1, 2, 0\)"),
        (tensor / 255, r"\(255 \* t\)\.round\(\)\.byte\(\)"),
        (tensor[None], "localizer.batch"),
        ((tensor / 255).requires_grad_(), "cannot be read as an array"),
        (tensor.to("meta"), "cannot be read as an array"),
    ):
        with pytest.raises(ImageError, match=says):
            read_image(wrong)


def test_lists_are_no_pictures():
    for source in ([PHOTO, PHOTO], ("a.jpg",), [[1, 2], [3, 4]]):
        with pytest.raises(ImageError, match=r"for several pictures use localizer\.batch"):
            read_image(source)


class _BytesPath:
    def __fspath__(self) -> bytes:
        return b"no-such.jpg"


def test_paths_of_bytes():
    with pytest.raises(ImageError, match=r"^no-such\.jpg: no such file"):
        read_image(_BytesPath())


@pytest.mark.parametrize(("named", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_unicode_form_is_found(tmp_path, named, written):
    (tmp_path / unicodedata.normalize(written, "Café")).mkdir()
    (tmp_path / unicodedata.normalize(written, "Café/Ångström.png")).write_bytes(PNG.getvalue())
    wanted = unicodedata.normalize(named, str(tmp_path / "Café/Ångström.png"))
    assert not Path(wanted).exists()
    np.testing.assert_array_equal(read_image(wanted), PHOTO)


def test_describe():
    assert describe(PHOTO) == "<array uint8 60x90x3>"
    assert describe(b"abc") == "<3 bytes>"
    assert describe(Image.fromarray(PHOTO)) == "<image RGB 90x60>"
