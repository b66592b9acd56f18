"""The kernels of training in bf16 on one GPU, in Triton, which torch's CUDA builds bring along.

They compute what the CPU's kernels compute. They train under autocast and inside the capture of a
CUDA graph: nothing waits for the device, and no atomics are used, so that equal inputs give equal
bits. Activations are bf16 in channels_last memory, which the kernels see as dense matrices (pixels,
channels); parameters, statistics and all sums are fp32.
"""

from sepablate.kernels.triton.batch_norm import batch_norm
from sepablate.kernels.triton.convolution import convolution
from sepablate.kernels.triton.depthwise import depthwise
from sepablate.kernels.triton.dropout import dropout
from sepablate.kernels.triton.max_pool import max_pool

__all__ = ["batch_norm", "convolution", "depthwise", "dropout", "max_pool"]
