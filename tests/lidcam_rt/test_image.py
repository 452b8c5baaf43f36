from __future__ import annotations

import io
import warnings

import artifacts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lidcam_rt.artifact import InputSpec
from lidcam_rt.errors import ImageError
from lidcam_rt.image import describe, network_input, placement, read_image, to_original_size

RNG = np.random.default_rng(5)
PHOTO = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize(
        (90, 60), Image.Resampling.BICUBIC
    )
)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_are_exact(form, tmp_path):
    data = encoded(Image.fromarray(PHOTO), form)
    path = tmp_path / "p"
    path.write_bytes(data)
    for source in (data, bytearray(data), memoryview(data), path, str(path), Image.open(io.BytesIO(data))):
        np.testing.assert_array_equal(read_image(source), PHOTO)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exif_orientation_as_pillow_applies_it(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(PHOTO), form, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(read_image(data), upright)
    np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(data))), upright)


@pytest.mark.parametrize("options", [{}, {"quality": 30}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_pixels_are_those_of_pillow(options):
    data = encoded(Image.fromarray(PHOTO), "JPEG", **options)
    np.testing.assert_array_equal(read_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "P"])
def test_modes_are_converted(mode):
    image = Image.fromarray(PHOTO).convert(mode)
    form = {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG")
    data = encoded(image, form)
    np.testing.assert_array_equal(read_image(data), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg():
    data = encoded(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_array_equal(read_image(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(form):
    deep = (np.arange(60 * 90, dtype=np.uint32).reshape(60, 90) * 12).astype(np.uint16)
    expected = np.rint(deep / 257.0).astype(np.uint8)
    got = read_image(encoded(Image.fromarray(deep), form))
    assert got.shape == (60, 90, 3) and int(got.max()) > 240
    np.testing.assert_array_equal(got[..., 1], expected)
    np.testing.assert_array_equal(read_image(deep)[..., 0], expected)


def test_transparency_is_laid_over_white():
    rgba = np.dstack([PHOTO, np.full((60, 90), 255, np.uint8)])
    rgba[:30, :, 3] = 0
    rgba[30:40, :, 3] = 128
    white = Image.new("RGBA", (90, 60), (255, 255, 255, 255))
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(rgba)).convert("RGB")).astype(int)
    for source in (rgba, Image.fromarray(rgba), encoded(Image.fromarray(rgba), "PNG")):
        got = read_image(source)
        assert (got[:30] == 255).all()
        assert np.abs(got.astype(int) - expected).max() <= 1
    palette = Image.fromarray(rgba).convert("RGBA").quantize(16)
    assert (read_image(encoded(palette, "PNG"))[:30] == 255).all()


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert tuple(read_image(data)[4, 4]) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello, this is a text", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (encoded(Image.fromarray(PHOTO), "JPEG")[:-300], "truncated or damaged"),
        (encoded(Image.fromarray(PHOTO), "JPEG")[:30], "truncated|damaged"),
        (encoded(Image.fromarray(PHOTO), "PNG")[:-900], "truncated or damaged"),
        (encoded(Image.fromarray(PHOTO), "TIFF")[:2000], "truncated|damaged"),
    ],
)
def test_bad_files_say_which_and_why(tmp_path, data, says):
    path = tmp_path / "bad.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=says) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ImageError, match=says):
        read_image(data)


def test_paths_that_are_no_pictures(tmp_path):
    for source, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "none.jpg", "no such file"),
        ("https://example.org/a.jpg", "not fetched"),
        ("/dev/null", "no regular file"),
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


def test_undefined_ranges_are_refused():
    with pytest.raises(ImageError, match="no stated range"):
        read_image(Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(ImageError, match="no stated range"):
        read_image(encoded(Image.fromarray(np.zeros((4, 4), np.int32)), "TIFF"))


def test_a_huge_picture_is_refused_before_it_is_decoded():
    data = encoded(Image.new("1", (20000, 20000)), "PNG")
    assert len(data) < 200_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"20000x20000 is 400,000,000 pixels.*--max-pixels"):
            read_image(data)
        small = encoded(Image.new("1", (100, 10)), "PNG")
        with pytest.raises(ImageError, match="over the limit of 999"):
            read_image(small, max_pixels=999)
        assert read_image(small, max_pixels=1000).shape == (10, 100, 3)
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 4), st.integers(0, 10_000))
def test_damaged_files_never_raise_anything_else(noise, kind, cut):
    form = ("JPEG", "PNG", "GIF", "WEBP", "TIFF")[kind]
    data = bytearray(encoded(Image.fromarray(PHOTO), form))
    cut %= len(data)
    data[cut : cut + len(noise)] = noise
    try:
        picture = read_image(bytes(data), max_pixels=1_000_000)
    except ImageError:
        return
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


def spec(**options) -> InputSpec:
    return artifacts.manifest(**options).input


@pytest.mark.parametrize(
    ("name", "filter_"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
def test_network_input_is_pillows_resize(name, filter_):
    wanted = spec(size=(32, 48)).model_copy(update={"interpolation": name})
    got = network_input(PHOTO, wanted)
    np.testing.assert_array_equal(got, np.asarray(Image.fromarray(PHOTO).resize((48, 32), filter_)))
    as_float = network_input(
        PHOTO, spec(size=(32, 48), dtype="float32").model_copy(update={"interpolation": name})
    )
    np.testing.assert_allclose(as_float.transpose(1, 2, 0), (got.astype(float) - 127.5) / 127.5, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_letterbox_keeps_the_shape_and_comes_back(width, height):
    wanted = spec(size=(64, 64), resize="letterbox")
    place = placement((width, height), wanted)
    assert max(place.width, place.height) == 64 and min(place.width, place.height) >= 1
    assert abs(place.width / 64 * max(width, height) - width) <= max(width, height) / 64
    white = network_input(np.full((height, width, 3), 255, np.uint8), wanted)
    inside = (white == 255).all(axis=2)
    assert inside.sum() == place.width * place.height and (white[~inside] == 128).all()
    back = to_original_size(inside.astype(np.uint8) * np.uint8(255), (width, height), wanted)
    assert back.shape == (height, width) and (back == 255).all()


def test_describe():
    assert describe(PHOTO) == "<array uint8 60x90x3>"
    assert describe(b"abc") == "<3 bytes>"
    assert describe(Image.fromarray(PHOTO)) == "<image RGB 90x60>"
