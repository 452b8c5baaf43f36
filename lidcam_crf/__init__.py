"""A drop-in for pydensecrf: `densecrf` and `utils`, on the kernels of lidcam_rt. See docs/crf.md."""
