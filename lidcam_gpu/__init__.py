"""The GPU: our kernels on arrays that are on the device, and the whole way from picture to box on one device."""
