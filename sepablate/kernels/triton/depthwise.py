"""Depthwise 3x3 convolution with a border of one pixel, after a ReLU if wanted."""

from typing import Any

import torch
from torch import Tensor

from sepablate.kernels.triton import depthwise_rows, depthwise_strided
from sepablate.kernels.triton.memory import last


def depthwise(x: Tensor, weight: Tensor, stride: int, relu: bool) -> Tensor:
    """x (N, C, H, W), weight (C, 1, 3, 3) in fp32 -> (N, C, ceil(H / stride), ceil(W / stride))."""
    found: Tensor = _Depthwise.apply(x, weight, stride, relu)
    return found


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, relu: bool) -> Tensor:
        x, weight = last(x), weight.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.relu = stride, relu
        if stride == 1:
            return depthwise_rows.forward(x, weight, relu)
        return depthwise_strided.forward(x, weight, stride, relu)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy = last(gradients[0])
        if ctx.stride == 1:
            dx, dweight = depthwise_rows.backward(x, weight, dy, ctx.relu)
        else:
            dx, dweight = depthwise_strided.backward(x, weight, dy, ctx.stride, ctx.relu)
        return dx, dweight, None, None
