"""Pictures: decoded, turned upright, brought to RGB, and resized as the artifact's manifest says.

Every kind of picture has one documented treatment (docs/runtime.md): grey is repeated over the channels; palette,
CMYK and YCbCr are converted; 16-bit grey is scaled to 8 bits; transparency is composited over white; the orientation
(EXIF or XMP) is applied; only the first frame of an animation is used. A picture that cannot be converted to RGB
faithfully, or that lacks data, is refused.
"""

from lidcam_rt.image.formats import FORMATS, MAX_PIXELS, image_suffixes
from lidcam_rt.image.read import Picture, decode, read_image, upright_size
from lidcam_rt.image.resize import Placement, RgbImage, network_input, network_pixels, placement, to_original_size
from lidcam_rt.image.sources import ImageSource, describe

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "ImageSource",
    "Picture",
    "Placement",
    "RgbImage",
    "decode",
    "describe",
    "image_suffixes",
    "network_input",
    "network_pixels",
    "placement",
    "read_image",
    "to_original_size",
    "upright_size",
]
