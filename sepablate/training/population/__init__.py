"""Several runs of one network trained together on a GPU, in one set of kernels."""
