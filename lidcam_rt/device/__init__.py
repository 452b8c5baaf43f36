"""The GPU: the CUDA runtime through cuda-python, and our kernels on arrays that are already there."""
