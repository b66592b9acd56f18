"""Triton kernels for training in bf16 on one GPU.

They compute the same functions as the C++ kernels do on a CPU, need nothing but the Triton that
comes with PyTorch's CUDA builds, and work under autocast and inside the capture of a CUDA graph:
no kernel waits for the device. None uses atomics, so equal inputs give equal bits.

Activations are bf16 in channels_last memory, which the kernels treat as dense matrices (pixels,
channels). Parameters, statistics and all sums are fp32.
"""

from sepablate.kernels.triton.batch_norm import batch_norm
from sepablate.kernels.triton.convolution import convolution
from sepablate.kernels.triton.depthwise import depthwise
from sepablate.kernels.triton.dropout import dropout
from sepablate.kernels.triton.max_pool import max_pool

__all__ = ["batch_norm", "convolution", "depthwise", "dropout", "max_pool"]
