"""1x1 convolution: matrix products of torch, on the pixels as they lie in memory."""

from typing import Any

import torch
from torch import Tensor

from sepablate.kernels.triton.memory import last, like, matrix


def convolution(x: Tensor, weight: Tensor, stride: int, top: int, left: int) -> Tensor:
    """x (N, C, H, W), weight (O, C, 1, 1) in fp32 -> (N, O, ceil(H / stride), ceil(W / stride)).

    ValueError for other kernels, for another stride than 1 or 2, and for a border: top, left.
    """
    if weight.shape[2:] != (1, 1) or stride not in (1, 2) or (top, left) != (0, 0):
        raise ValueError(
            "only 1x1 kernels with stride 1 or 2 and no border, not "
            f"{tuple(weight.shape)}, stride {stride}, border {top}, {left}"
        )
    found: Tensor = _Convolution.apply(x, weight, stride)
    return found


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.sizes, ctx.stride = x.shape, stride
        x = last(x[:, :, ::stride, ::stride])
        half = weight.flatten(1).to(torch.bfloat16)
        ctx.save_for_backward(x, half)
        images, _, rows, columns = x.shape
        y = torch.mm(matrix(x), half.t())
        return y.view(images, rows, columns, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, half = ctx.saved_tensors
        dy = matrix(last(gradients[0]))
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.mm(dy, half).view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
            if ctx.stride > 1:
                strided, dx = dx, like(x, ctx.sizes).zero_()
                dx[:, :, :: ctx.stride, :: ctx.stride] = strided
        dweight = _product(dy.t(), matrix(x)).view(*half.shape, 1, 1)
        return dx, dweight, None


def _product(left: Tensor, right: Tensor) -> Tensor:
    """In fp32, of bf16."""
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()
