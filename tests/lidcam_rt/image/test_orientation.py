"""All orientations in all formats that carry one give the array of the picture turned by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lidcam_rt.image import read_image

SIDE = 24
#: What a camera held in each way stores; the values of tag 0x0112 in EXIF 2.32, by Pillow's own names.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
PHOTO = Image.fromarray(np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(
    (2 * SIDE, SIDE), Image.Resampling.BICUBIC
)
LOSSLESS = {
    "PNG": {},
    "TIFF": {},
    "TIFF LZW": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
}
LOSSY = {"JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95}, "WEBP": {"quality": 95}}


def xmp(orientation: int) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def stored(orientation: int, form: str, options: dict, how: str) -> bytes:
    turned = PHOTO if STORED[orientation] is None else PHOTO.transpose(STORED[orientation])
    options, form = dict(options), form.split()[0]
    if how == "exif":
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    elif form == "PNG":
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp(orientation).decode())
    elif form == "TIFF":
        options["tiffinfo"] = {700: xmp(orientation)}
    else:
        options["xmp"] = xmp(orientation)
    file = io.BytesIO()
    turned.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("how", ["exif", "xmp"])
@pytest.mark.parametrize("form", LOSSLESS)
@pytest.mark.parametrize("orientation", STORED)
def test_lossless_formats_give_the_upright_pixels(orientation, form, how):
    data = stored(orientation, form, LOSSLESS[form], how)
    np.testing.assert_array_equal(read_image(data), np.asarray(PHOTO))
    np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(data))), np.asarray(PHOTO))


def assert_upright(got: np.ndarray) -> None:
    """Closer to the picture than to any other way to turn it."""
    assert got.shape == (SIDE, 2 * SIDE, 3)
    turned = [PHOTO if how is None else PHOTO.transpose(how) for how in STORED.values()]
    errors = [np.abs(got.astype(int) - np.asarray(t)).mean() if t.size == PHOTO.size else 255 for t in turned]
    assert errors[0] < 0.5 * min(errors[1:])


@pytest.mark.parametrize("how", ["exif", "xmp"])
@pytest.mark.parametrize("form", LOSSY)
@pytest.mark.parametrize("orientation", STORED)
def test_lossy_formats_give_the_upright_picture(orientation, form, how):
    data = stored(orientation, form, LOSSY[form], how)
    for source in (data, Image.open(io.BytesIO(data))):
        assert_upright(read_image(source))


@pytest.mark.parametrize("orientation", STORED)
def test_heic(orientation):
    heif = pytest.importorskip("pillow_heif")
    turned = PHOTO if STORED[orientation] is None else PHOTO.transpose(STORED[orientation])
    turned = turned.resize((turned.width * 4, turned.height * 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    try:
        heif.from_pillow(turned).save(file, quality=95, exif=exif.tobytes())
    except RuntimeError as error:
        pytest.skip(f"pillow-heif has no encoder here: {error}")
    got = Image.fromarray(read_image(file.getvalue()))
    assert got.size == (8 * SIDE, 4 * SIDE)
    assert_upright(np.asarray(got.resize((2 * SIDE, SIDE), Image.Resampling.BOX)))
