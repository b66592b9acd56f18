"""Fused kernels for training in bf16, in C++ for a CPU and in Triton for a GPU; see `fuse.py`."""
