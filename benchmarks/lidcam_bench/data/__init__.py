"""Data sets: records of pictures with their truth, and the readers of published layouts."""
