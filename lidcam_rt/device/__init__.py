"""The GPU: the CUDA runtime through cuda-python, and our own kernels on arrays that are there already."""
