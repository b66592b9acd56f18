"""Depthwise 3x3 convolution with padding 1, optionally after a ReLU."""

from typing import Any

import torch
from torch import Tensor

from sepablate.kernels.triton import depthwise_rows, depthwise_strided
from sepablate.kernels.triton.memory import channels_last


def depthwise(x: Tensor, weight: Tensor, stride: int, relu: bool) -> Tensor:
    """Return the depthwise 3x3 convolution of `x`, or of ReLU(x), with padding 1.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, 3, 3) in fp32.
        stride: any positive stride.
        relu: whether to apply a ReLU to `x` first.

    Returns:
        (N, C, ceil(H / stride), ceil(W / stride)) in bf16.
    """
    y: Tensor = _Depthwise.apply(x, weight, stride, relu)
    return y


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, relu: bool) -> Tensor:
        x, weight = channels_last(x), weight.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.relu = stride, relu
        if stride == 1:
            return depthwise_rows.forward(x, weight, relu)
        return depthwise_strided.forward(x, weight, stride, relu)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy = channels_last(grad_outputs[0])
        if ctx.stride == 1:
            dx, dweight = depthwise_rows.backward(x, weight, dy, ctx.relu)
        else:
            dx, dweight = depthwise_strided.backward(x, weight, dy, ctx.stride, ctx.relu)
        return dx, dweight, None, None
