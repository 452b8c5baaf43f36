"""Data sets: pictures with their ground truth (records), and one opener for every layout that is read.

`open_data` opens a folder, a COCO file or a published layout by name; the readers are in `readers/`, one file each.
"""

from lidcam_bench.data.masks import MaskFile, MaskForm, MaskSource
from lidcam_bench.data.opener import open_data
from lidcam_bench.data.records import ImageSet, Record, Truth

__all__ = ["ImageSet", "MaskFile", "MaskForm", "MaskSource", "Record", "Truth", "open_data"]
