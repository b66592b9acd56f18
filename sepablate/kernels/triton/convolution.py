"""1x1 convolution, computed by PyTorch's matrix products on channels_last activations."""

from typing import Any

import torch
from torch import Tensor

from sepablate.kernels.triton.memory import as_matrix, channels_last, empty_channels_last


def convolution(
    x: Tensor, weight: Tensor, stride: int, padding_height: int, padding_width: int
) -> Tensor:
    """Return the 1x1 convolution of `x`.

    Args:
        x: (N, C, H, W).
        weight: (O, C, 1, 1) in fp32.
        stride: 1 or 2.
        padding_height: must be 0.
        padding_width: must be 0.

    Returns:
        (N, O, ceil(H / stride), ceil(W / stride)) in bf16.

    Raises:
        ValueError: for other kernel sizes, strides or paddings.
    """
    padding = (padding_height, padding_width)
    if weight.shape[2:] != (1, 1) or stride not in (1, 2) or padding != (0, 0):
        raise ValueError(
            "only 1x1 kernels with stride 1 or 2 and no padding are supported; got weight "
            f"{tuple(weight.shape)}, stride {stride}, padding {padding}"
        )
    y: Tensor = _Convolution.apply(x, weight, stride)
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.input_shape, ctx.stride = x.shape, stride
        x = channels_last(x[:, :, ::stride, ::stride])
        weight_bf16 = weight.flatten(1).to(torch.bfloat16)
        ctx.save_for_backward(x, weight_bf16)
        images, _, height, width = x.shape
        y = torch.mm(as_matrix(x), weight_bf16.t())
        return y.view(images, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_bf16 = ctx.saved_tensors
        dy = as_matrix(channels_last(grad_outputs[0]))
        dx = None
        if ctx.needs_input_grad[0]:
            dx = torch.mm(dy, weight_bf16).view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
            if ctx.stride > 1:
                strided, dx = dx, empty_channels_last(ctx.input_shape, x.device).zero_()
                dx[:, :, :: ctx.stride, :: ctx.stride] = strided
        dweight = _matmul_fp32(dy.t(), as_matrix(x)).view(*weight_bf16.shape, 1, 1)
        return dx, dweight, None


def _matmul_fp32(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of two bf16 matrices in fp32."""
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()
