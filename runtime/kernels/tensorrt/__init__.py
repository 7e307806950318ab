"""The CUDA forms of the kernels inside TensorRT, as plugins."""
