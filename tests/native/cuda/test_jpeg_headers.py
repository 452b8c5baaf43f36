"""Which JPEG files go to the decoder on the device: those that it reads as the reader on the CPU does."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lidcam_gpu.jpeg import plain_jpeg
from lidcam_rt.errors import ImageError
from lidcam_rt.image import MAX_PIXELS, read_image, upright_size

rng = np.random.default_rng(4)
PHOTO = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8)).resize((70, 50))
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def jpeg(image: Image.Image = PHOTO, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def exif(orientation: object) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "a camera"
    return tags


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    """A segment more, behind the first."""
    at = 4 + int.from_bytes(data[4:6], "big")
    return data[:at] + bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body + data[at:]


def frame(data: bytes) -> int:
    """Where the frame's header is."""
    return min(at for kind in (b"\xff\xc0\0", b"\xff\xc2\0") if (at := data.find(kind)) > 0)


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


TAKEN = {
    "4:4:4": jpeg(subsampling=0),
    "4:2:2": jpeg(subsampling=1),
    "4:2:0": jpeg(subsampling=2),
    "progressive": jpeg(progressive=True),
    "own Huffman tables": jpeg(optimize=True),
    "restart markers": jpeg(restart_marker_rows=1),
    "EXIF, upright": jpeg(exif=exif(1)),
    "EXIF without orientation": jpeg(exif=Image.Exif()),
    "EXIF before XMP": with_segment(jpeg(exif=exif(1)), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP % 6),
    "colour profile": jpeg(icc_profile=bytes(500)),
    "comment": jpeg(comment=b"\xff\xd8 a comment \xff\xd9"),
    "Adobe's YCbCr": with_segment(jpeg(), 0xEE, b"Adobe\0d\0\0\0\0\1"),
    "one pixel": jpeg(PHOTO.crop((0, 0, 1, 1))),
}

plain = jpeg()
SCANS = plain.find(b"\xff\xda")
LEFT = {
    "grey": jpeg(PHOTO.convert("L")),
    "CMYK": jpeg(PHOTO.convert("CMYK")),
    "RGB inside": jpeg(keep_rgb=True),
    "components called RGB": changed(changed(changed(plain, frame(plain) + 10, 82), frame(plain) + 13, 71),
                                     frame(plain) + 16, 66),
    "Adobe's RGB": with_segment(plain, 0xEE, b"Adobe\0d\0\0\0\0\0"),
    "12 bits": changed(plain, frame(plain) + 4, 12),
    "arithmetic coding": changed(plain, frame(plain) + 1, 0xC9),
    "lossless": changed(plain, frame(plain) + 1, 0xC3),
    "chroma with more samples than luma": changed(plain, frame(plain) + 14, 0x21),
    "no height": changed(changed(plain, frame(plain) + 5, 0), frame(plain) + 6, 0),
    **{f"orientation {value}": jpeg(exif=exif(value)) for value in range(2, 9)},
    "orientation 0": jpeg(exif=exif(0)),
    "turned by XMP": with_segment(plain, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP % 6),
    "two EXIF segments": with_segment(jpeg(exif=exif(1)), 0xE1, b"Exif\0\0" + exif(6).tobytes()),
    "several pictures": with_segment(plain, 0xE2, b"MPF\0II*\0"),
    "another picture behind it": plain + plain,
    "bytes behind it": plain + b"\0",
    "no end": plain[:-2],
    "half of it": plain[: len(plain) // 2],
    "half of it, with an end": plain[: len(plain) // 2] + b"\xff\xd9" + plain[len(plain) // 2 :],
    "a hole": plain[: SCANS + 40] + bytes(4096) + plain[SCANS + 40 :],
    "a marker in its data": plain[:-40] + b"\xff\xc0" + plain[-38:],
    "PNG": (lambda f: (PHOTO.save(f, "PNG"), f.getvalue())[1])(io.BytesIO()),
    "no picture": b"\xff\xd8",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("kind", TAKEN)
def test_taken_and_read_alike_on_the_cpu(kind):
    size = plain_jpeg(TAKEN[kind], MAX_PIXELS)
    with Image.open(io.BytesIO(TAKEN[kind])) as image:
        as_it_is = np.asarray(image.convert("RGB"))
    assert size == as_it_is.shape[:2]
    np.testing.assert_array_equal(read_image(TAKEN[kind]), as_it_is)  # neither turned nor converted


@pytest.mark.parametrize("kind", LEFT)
def test_left_to_the_cpu(kind):
    assert plain_jpeg(LEFT[kind], MAX_PIXELS) is None


def test_limits_are_those_of_the_reader():
    pixels = PHOTO.width * PHOTO.height
    assert plain_jpeg(plain, pixels) == (50, 70)
    read_image(plain, max_pixels=pixels)
    many = jpeg(progressive=True)
    scan = many.rfind(b"\xff\xda")
    many = many[:scan] + 200 * many[scan:-2] + b"\xff\xd9"  # the last scan again and again
    for data, limit in ((plain, pixels - 1), (many, pixels)):
        assert plain_jpeg(data, limit) is None
        with pytest.raises(ImageError, match=r"over the limit|too long to decode"):
            read_image(data, max_pixels=limit)
    assert plain_jpeg(many, 100 * pixels) == (50, 70)


@given(st.integers(0, len(plain) - 1))
@settings(deadline=None)
def test_no_truncated_file_is_taken(cut):
    for data in (plain, TAKEN["progressive"], TAKEN["restart markers"]):
        assert plain_jpeg(data[: cut % len(data)], MAX_PIXELS) is None


@given(st.sampled_from(sorted(TAKEN)), st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=3))
@settings(deadline=None, max_examples=300)
def test_what_is_taken_of_damaged_headers_has_the_size_that_the_reader_sees(kind, changes):
    data = bytearray(TAKEN[kind])
    for at, value in changes:
        data[at % len(data)] = value
    size = plain_jpeg(bytes(data), MAX_PIXELS)
    if size is not None:
        try:
            assert upright_size(bytes(data)) == size[::-1]
            read = read_image(bytes(data))
        except ImageError:
            return  # damage that the markers do not show
        assert read.shape[:2] == size
