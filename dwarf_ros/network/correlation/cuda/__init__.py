"""The correlations as compiled kernels: CUDA where there is a GPU, and a CPU version of the same kernels."""
