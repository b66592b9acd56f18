"""1x1 convolutions of several networks, whose activations lie in the channels of one tensor.

x is (N, S * C, H, W) for S networks: channels s * C to (s + 1) * C are those of network s.
"""

from typing import Any

import torch
from torch import Tensor

from sepablate.kernels.triton.memory import as_matrix, channels_last, empty_channels_last


def pointwise(x: Tensor, weight: Tensor, stride: int, networks: int) -> Tensor:
    """Return the 1x1 convolutions of `networks` networks: one batched matrix product.

    Args:
        x: (N, S * C, H, W).
        weight: (S * O, C, 1, 1) in fp32.
        stride: 1 or 2.
        networks: S.

    Returns:
        (N, S * O, ceil(H / stride), ceil(W / stride)) in bf16.
    """
    y: Tensor = _Pointwise.apply(x, weight, stride, networks)
    return y


class _Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, networks: int) -> Tensor:
        ctx.input_shape, ctx.stride, ctx.networks = x.shape, stride, networks
        x = channels_last(x[:, :, ::stride, ::stride])
        weights = weight.flatten(1).to(torch.bfloat16).unflatten(0, (networks, -1))  # (S, O, C)
        ctx.save_for_backward(x, weights)
        y = _matmul(_split(x, networks), weights.transpose(1, 2))
        return _as_images(y, x.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weights = ctx.saved_tensors
        dy, dx = _split(channels_last(grad_outputs[0]), ctx.networks), None
        if ctx.needs_input_grad[0]:
            dx = _as_images(_matmul(dy, weights), x.shape)
            if ctx.stride > 1:
                strided, dx = dx, empty_channels_last(ctx.input_shape, x.device).zero_()
                dx[:, :, :: ctx.stride, :: ctx.stride] = strided
        dweight = _matmul_fp32(dy.transpose(1, 2), _split(x, ctx.networks))
        return dx, dweight.flatten(0, 1)[:, :, None, None], None, None


def _split(x: Tensor, networks: int) -> Tensor:
    """Return a view (S, pixels, C) of channels_last x (N, S * C, H, W)."""
    return as_matrix(x).unflatten(1, (networks, -1)).transpose(0, 1)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return a (S, pixels, k) times b (S, k, columns), with the pixels first in memory."""
    y = a.new_empty(a.shape[1], a.shape[0], b.shape[2]).transpose(0, 1)
    torch.bmm(a, b, out=y)
    return y


def _matmul_fp32(a: Tensor, b: Tensor) -> Tensor:
    """Return the products of two stacks of bf16 matrices in fp32."""
    if a.is_cuda:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def _as_images(y: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a view (N, S * O, H, W) in channels_last memory of y (S, pixels, O)."""
    images, _, height, width = shape
    return y.transpose(0, 1).reshape(images, height, width, -1).permute(0, 3, 1, 2)
