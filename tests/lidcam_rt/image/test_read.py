from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lidcam_rt.errors import ImageError
from lidcam_rt.image import read_image

RNG = np.random.default_rng(5)
PHOTO = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((90, 60), Image.Resampling.BICUBIC)
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


def test_undefined_ranges_are_refused():
    with pytest.raises(ImageError, match="no stated range"):
        read_image(Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(ImageError, match="no stated range"):
        read_image(encoded(Image.fromarray(np.zeros((4, 4), np.int32)), "TIFF"))


@pytest.mark.slow
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


@pytest.mark.slow
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
