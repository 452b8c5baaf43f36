"""Damaged and hostile files: refused when strict, shown as far as they go when not."""

from __future__ import annotations

import functools
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lidcam_rt.errors import ImageError
from lidcam_rt.image import decode, read_image
from lidcam_rt.image.damage import count_scans

RNG = np.random.default_rng(5)
_SMOOTH = Image.fromarray(RNG.integers(30, 226, (40, 60, 3), dtype=np.uint8)).resize(
    (600, 400), Image.Resampling.BICUBIC
)
PHOTO = np.clip(np.rint(_SMOOTH + RNG.normal(0, 6, (400, 600, 3))), 0, 255).astype(np.uint8)


def encoded(form: str, pixels: np.ndarray | Image.Image = PHOTO, **options) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, form, **options)
    return file.getvalue()


def heic() -> bytes:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    try:
        heif.from_pillow(Image.fromarray(PHOTO)).save(file, quality=90)
    except RuntimeError as error:
        pytest.skip(f"pillow-heif has no encoder here: {error}")
    return file.getvalue()


FILES = {
    "JPEG": lambda: encoded("JPEG", quality=90),
    "JPEG progressive": lambda: encoded("JPEG", progressive=True),
    "JPEG grey": lambda: encoded("JPEG", PHOTO[..., 0]),
    "JPEG CMYK": lambda: encoded("JPEG", Image.fromarray(PHOTO).convert("CMYK")),
    "MPO": lambda: encoded("MPO"),
    "PNG": lambda: encoded("PNG"),
    "GIF": lambda: encoded("GIF"),
    "WEBP": lambda: encoded("WEBP"),
    "WEBP lossless": lambda: encoded("WEBP", lossless=True),
    "AVIF": lambda: encoded("AVIF"),
    "HEIC": heic,
    "JPEG2000": lambda: encoded("JPEG2000"),
    "JPEG2000 codestream": lambda: encoded("JPEG2000", no_jp2=True),
    "BMP": lambda: encoded("BMP"),
    "PPM": lambda: encoded("PPM"),
    "TGA": lambda: encoded("TGA"),
    "TGA packed": lambda: encoded("TGA", compression="tga_rle"),
    "TIFF": lambda: encoded("TIFF"),
    "TIFF LZW": lambda: encoded("TIFF", compression="tiff_lzw"),
    "TIFF deflate": lambda: encoded("TIFF", compression="tiff_deflate"),
    "TIFF JPEG": lambda: encoded("TIFF", compression="jpeg"),
}


@functools.cache
def file(form: str) -> bytes:
    return FILES[form]()


def zeroed(data: bytes, share: float) -> bytes:
    at = int(len(data) * share)
    return data[:at] + bytes(len(data) - at)


@pytest.mark.parametrize("form", FILES)
def test_whole_files_are_taken(form):
    picture = decode(file(form))
    assert picture.missing is None and picture.pixels.shape[2] == 3


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_an_aborted_download_is_refused(form, share):
    """A file that was given its size first, and then not filled to its end."""
    with pytest.raises(ImageError, match="damaged"):
        read_image(zeroed(file(form), share))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "AVIF", "HEIC", "JPEG2000", "TIFF LZW", "TIFF deflate"])
def test_the_last_tenth_missing_is_noticed_in_compressed_formats(form):
    with pytest.raises(ImageError, match="damaged"):
        read_image(zeroed(file(form), 0.9))


@pytest.mark.parametrize("form", FILES)
def test_a_file_cut_short_is_refused(form):
    data = file(form)
    with pytest.raises(ImageError, match="damaged"):
        read_image(data[: len(data) // 2])


@pytest.mark.parametrize("form", ["JPEG", "JPEG progressive", "PNG", "AVIF", "HEIC", "JPEG2000", "TIFF LZW"])
def test_a_page_of_zeros_inside_is_refused(form):
    data = file(form)
    at = len(data) // 2
    with pytest.raises(ImageError, match="damaged"):
        read_image(data[:at] + bytes(4096) + data[at + 4096 :])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_a_png_with_one_flipped_bit_is_refused(where):
    data = bytearray(PNG)
    byte = 8 + where // 8 % (len(data) - 8)
    data[byte] ^= 1 << where % 8
    with pytest.raises(ImageError):
        read_image(bytes(data))


PNG = encoded("PNG")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_black_pngs_are_taken(mode):
    for size in ((1, 1), (7, 3), (300, 200)):
        data = encoded("PNG", Image.new(mode, size))
        assert read_image(data).shape == (size[1], size[0], 3)
        cut = data[: data.index(b"IDAT") - 4]
        with pytest.raises(ImageError):
            read_image(cut + data[-12:])


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels: np.ndarray, *, interlaced: bool = False, share: float = 1.0) -> bytes:
    """A PNG with right checksums, of which a share of the pixels' data is there."""
    height, width = pixels.shape[:2]
    parts = [pixels[y::down, x::across] for x, y, across, down in PASSES] if interlaced else [pixels]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    body = zlib.compress(rows[: int(len(rows) * share)])
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(40, 60), (1, 1), (2, 3), (5, 1), (1, 5)])
def test_a_png_that_lacks_rows_is_refused_although_its_checksums_are_right(interlaced, size):
    for pixels in (PHOTO[: size[0], : size[1]], np.zeros((*size, 3), np.uint8)):
        data = png(pixels, interlaced=interlaced)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
        np.testing.assert_array_equal(read_image(data), pixels)
        for share in (0.5, 0.9):
            with pytest.raises(ImageError, match=r"it lacks rows|is truncated"):
                read_image(png(pixels, interlaced=interlaced, share=share))
            assert decode(png(pixels, interlaced=interlaced, share=share), strict=False).missing


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"IEND"])
def test_png_chunks_are_checked(kind):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "a text")
    data = encoded("PNG", pnginfo=info)
    at = data.rindex(kind)
    wrong = data[: at + 5] + bytes([data[at + 5] ^ 1]) + data[at + 6 :]
    with pytest.raises(ImageError, match=r"checksum of its chunk|ends too early|end is missing"):
        read_image(wrong)
    hole = data[: at - 4] + data[at + 8 + struct.unpack(">I", data[at - 4 : at])[0] :]
    if kind == b"tEXt":  # of the pixels nothing is missing
        np.testing.assert_array_equal(read_image(hole), PHOTO)
    else:
        with pytest.raises(ImageError):
            read_image(hole)


def test_a_small_jpeg_that_claims_much_is_refused():
    data = bytearray(encoded("JPEG", Image.new("RGB", (8, 8))))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 9400, 9400)
    assert len(data) < 700
    with pytest.raises(ImageError, match="premature end"):
        read_image(bytes(data))


@pytest.mark.parametrize("form", ["JPEG", "JPEG progressive", "JPEG grey", "PNG", "BMP", "PPM", "TGA", "TIFF"])
def test_without_strict_the_readable_part_is_shown_and_what_was_missing_is_said(form):
    whole = file(form)
    want = read_image(whole)
    picture = decode(whole[: len(whole) * 3 // 4], strict=False)
    assert picture.missing and picture.pixels.shape == want.shape
    rows = slice(220, None) if form in ("BMP", "TGA") else slice(0, 180)  # these begin with their last row
    close = np.abs(picture.pixels[rows].astype(int) - want[rows]).mean()
    assert close < (30 if form == "JPEG progressive" else 1)
    np.testing.assert_array_equal(read_image(whole[: len(whole) * 3 // 4], strict=False), picture.pixels)


def test_without_strict_a_png_with_wrong_checksums_is_shown():
    data = bytearray(PNG)
    at = data.index(b"IDAT")
    length = struct.unpack(">I", data[at - 4 : at])[0]
    data[at + 4 + length] ^= 255
    picture = decode(bytes(data), strict=False)
    assert picture.missing == "the checksum of its chunk IDAT is wrong"
    np.testing.assert_array_equal(picture.pixels, PHOTO)


@pytest.mark.parametrize("form", [form for form in FILES if form != "PPM"])  # of which 16 bytes hold a pixel
def test_what_cannot_be_shown_at_all_is_refused_without_strict_too(form):
    with pytest.raises(ImageError):
        read_image(file(form)[:16], strict=False)


def grown(scans: int) -> bytes:
    """A progressive JPEG of 9400x9400 pixels whose last scan, which refines nothing, is repeated."""
    data = encoded("JPEG", Image.new("L", (9400, 9400)), progressive=True, optimize=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(monkeypatch):
    data = grown(100)
    assert len(data) < 2_000_000 and count_scans(data) > 100
    monkeypatch.setattr("simplejpeg.decode_jpeg", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    with pytest.raises(ImageError, match=r"10\d scans of 9400x9400 pixels take too long"):
        read_image(data)


def test_scans_are_counted_exactly_only_where_it_matters():
    data = file("JPEG progressive")
    assert count_scans(data) == data.count(b"\xff\xda") > 5
    hidden = b"\xff\xe1" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200  # in a segment of metadata
    assert count_scans(data[:2] + hidden + data[2:]) == count_scans(data)
    np.testing.assert_array_equal(read_image(data[:2] + hidden + data[2:]), read_image(data))
    many = b"\xff\xd8" + b"\xff\xda\0\x02" * 20 + b"\xff\0" * 3_000_000
    assert count_scans(many) == 20


@pytest.mark.parametrize("form", ["BMP", "PPM", "TGA", "TIFF"])
def test_pictures_with_black_parts_are_taken(form):
    pixels = PHOTO.copy()
    pixels[:150] = pixels[250:] = 0
    np.testing.assert_array_equal(read_image(encoded(form, pixels)), pixels)


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"method": 0}, {"lossless": True, "method": 0, "quality": 0}]
)
@pytest.mark.parametrize("black", [0.5, 0.9, 1.0])
def test_flat_webp_is_taken(options, black):
    pixels = PHOTO.copy()
    pixels[round(400 * (1 - black)) :] = 0
    assert read_image(encoded("WEBP", pixels, **options)).shape == PHOTO.shape


def test_scanned_pages_are_taken():
    page = np.zeros((600, 500), bool)
    page[:80, :300] = RNG.random((80, 300)) < 0.3
    for form in ("PPM", "BMP", "TIFF", "PNG"):
        data = encoded(form, Image.fromarray(~page if form == "PPM" else page))
        assert read_image(data).shape == (600, 500, 3)
