"""Convolutions of several networks at once, whose activations lie in the channels of one tensor.

x is (N, S * C, H, W) for S networks: channels s * C to (s + 1) * C are those of network s.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from sepablate.kernels.triton.memory import as_matrix, channels_last, empty_channels_last

Kernel = tuple[int, int]


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


def convolution(x: Tensor, weight: Tensor, stride: int, padding: Kernel, networks: int) -> Tensor:
    """Return the k x k convolutions of `networks` networks: patches times weights.

    Args:
        x: (N, S * C, H, W).
        weight: (S * O, C, kh, kw) in fp32.
        stride: in both directions.
        padding: rows and columns of zeros at each side.
        networks: S.

    Returns:
        (N, S * O, H', W') in bf16.
    """
    y: Tensor = _Convolution.apply(x, weight, stride, padding, networks)
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


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: Kernel, networks: int
    ) -> Tensor:
        ctx.input_shape, ctx.stride, ctx.padding, ctx.networks = x.shape, stride, padding, networks
        kernel = _kernel(weight)
        patches, shape = _patches(x, kernel, stride, padding, networks)
        ctx.save_for_backward(patches, weight)
        weights = weight.to(torch.bfloat16).permute(0, 2, 3, 1).flatten(1)
        weights = weights.unflatten(0, (networks, -1))  # (S, O, kh * kw * C)
        return _as_images(_matmul(patches, weights.transpose(1, 2)), shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        patches, weight = ctx.saved_tensors
        dy, dx, kernel = channels_last(grad_outputs[0]), None, _kernel(weight)
        dweights = _matmul_fp32(_split(dy, ctx.networks).transpose(1, 2), patches)
        dweight = dweights.flatten(0, 1).unflatten(1, (*kernel, -1)).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[0]:
            dx = _input_gradient(dy, weight, ctx.input_shape, ctx.stride, ctx.padding, ctx.networks)
        return dx, dweight, None, None, None


def _input_gradient(
    dy: Tensor,
    weight: Tensor,
    input_shape: torch.Size,
    stride: int,
    padding: Kernel,
    networks: int,
) -> Tensor:
    """Return the gradient of x: the convolution of dy, spread out by `stride`, with w mirrored."""
    kernel = _kernel(weight)
    before = [size - 1 - zeros for size, zeros in zip(kernel, padding, strict=True)]
    sizes = [
        size + 2 * zeros - length + 1  # of the result at stride 1
        for size, zeros, length in zip(input_shape[2:], padding, kernel, strict=True)
    ]
    if stride > 1:
        spread = empty_channels_last((*dy.shape[:2], *sizes), dy.device).zero_()
        spread[:, :, ::stride, ::stride] = dy
        dy = spread
    patches, shape = _patches(dy, kernel, 1, (before[0], before[1]), networks)
    weights = weight.to(torch.bfloat16).flip(2, 3).unflatten(0, (networks, -1))  # (S, O, C, kh, kw)
    weights = weights.permute(0, 3, 4, 1, 2).flatten(1, 3)  # (S, kh * kw * O, C)
    return _as_images(_matmul(patches, weights), shape)


def _patches(
    x: Tensor, kernel: Kernel, stride: int, padding: Kernel, networks: int
) -> tuple[Tensor, tuple[int, ...]]:
    """Return (S, pixels, kh * kw * C), a view of memory (pixels, S, ...), and the shape of y.

    The shape is that of the images that the patches are of, with any number of channels.
    """
    rows, columns = padding
    padded = pad(channels_last(x).permute(0, 2, 3, 1), (0, 0, columns, columns, rows, rows))
    images, height, width, channels = padded.shape
    out = [
        (size - length) // stride + 1 for size, length in zip((height, width), kernel, strict=True)
    ]
    image, row, column = height * width * channels, width * channels, channels
    view = padded.as_strided(
        (images, *out, networks, *kernel, channels // networks),
        (image, stride * row, stride * column, channels // networks, row, column, 1),
    )
    matrix = view.reshape(images * out[0] * out[1], networks, -1)
    return matrix.transpose(0, 1), (images, channels, *out)


def _kernel(weight: Tensor) -> Kernel:
    return weight.shape[2], weight.shape[3]


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
