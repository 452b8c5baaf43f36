"""Data sets: records of pictures, their readers, and two sets that anyone can make."""

from lidcam_training.data.records import ImageSet, Record, open_dataset

__all__ = ["ImageSet", "Record", "open_dataset"]
