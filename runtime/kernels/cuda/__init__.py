"""The CUDA forms of the kernels: compiled, loaded and launched, with no GPU needed to import."""
