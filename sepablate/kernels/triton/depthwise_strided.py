"""Depthwise 3x3 convolution with any stride, in plain blocks of pixels."""
# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepablate.kernels.triton.blocks import (
    load_block,
    load_padded,
    program_offsets,
    relu,
    store_block,
    unravel_pixels,
)
from sepablate.kernels.triton.depthwise_taps import load_tap, load_taps, store_tap_grads
from sepablate.kernels.triton.launch import NUM_SMS, LaunchConfig, channel_block_size, tile_pixels
from sepablate.kernels.triton.memory import empty_channels_last, num_pixels

TARGET_PROGRAMS = 16 * NUM_SMS


def forward(x: Tensor, weight: Tensor, stride: int, has_relu: bool) -> Tensor:
    """Return the convolution of `x`, or of ReLU(x).

    Args:
        x: (N, C, H, W) in bf16 and channels_last memory.
        weight: (C, 1, 3, 3) in fp32, contiguous.
        stride: any positive stride.
        has_relu: whether to apply a ReLU to `x` first.

    Returns:
        (N, C, ceil(H / stride), ceil(W / stride)) in bf16 and channels_last memory.
    """
    images, channels, height, width = x.shape
    out_height, out_width = (height - 1) // stride + 1, (width - 1) // stride + 1
    y = empty_channels_last((images, channels, out_height, out_width), x.device)
    config = _launch_config(y, 1024)
    sizes = (height, width, out_height, out_width, num_pixels(y), config.steps)
    kernel = _depthwise_strided_forward_kernel
    config.launch(kernel, x, weight, y, *sizes, stride=stride, has_relu=has_relu)
    return y


def backward(
    x: Tensor, weight: Tensor, dy: Tensor, stride: int, has_relu: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `x` and `weight`.

    Args:
        x: as in `forward`.
        weight: as in `forward`.
        dy: gradient of the result, in its shape, in bf16 and channels_last memory.
        stride: as in `forward`.
        has_relu: as in `forward`.
    """
    dx = empty_channels_last(x.shape, x.device)
    config = _launch_config(x, 512)
    partial = torch.empty((config.num_groups, *weight.shape), device=x.device)
    sizes = (*x.shape[2:], *dy.shape[2:], num_pixels(x), config.steps)
    kernel = _depthwise_strided_backward_kernel
    config.launch(kernel, x, weight, dy, dx, partial, *sizes, stride=stride, has_relu=has_relu)
    return dx, partial.sum(0)


def _launch_config(output: Tensor, block_elements: int) -> LaunchConfig:
    """Return a configuration that covers `output` (N, C, H, W) by blocks of `block_elements`."""
    block_channels = channel_block_size(output.shape[1])
    max_groups = triton.cdiv(TARGET_PROGRAMS, triton.cdiv(output.shape[1], block_channels))
    return tile_pixels(output, block_elements // block_channels, block_channels, max_groups)


@triton.jit
def _depthwise_strided_forward_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    height,
    width,
    out_height,
    out_width,
    pixels,
    steps,
    stride: tl.constexpr,
    has_relu: tl.constexpr,
    units,
    alignment: tl.constexpr,
    int64_offsets: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Compute some blocks of the result, one after another."""
    channels = units * alignment
    first_offsets, channel_offsets = program_offsets(steps, block_pixels, block_channels)
    for step in range(steps):
        pixel_offsets = first_offsets + step * block_pixels
        mask = pixel_offsets < pixels
        image, out_row, out_column = unravel_pixels(pixel_offsets, out_height, out_width)
        y = tl.zeros([block_pixels, block_channels], tl.float32)
        for k in tl.static_range(9):
            x = load_padded(
                x_ptr,
                image,
                out_row * stride - 1 + k // 3,
                out_column * stride - 1 + k % 3,
                mask,
                channel_offsets,
                height,
                width,
                channels,
                int64_offsets,
            )
            if has_relu:
                x = relu(x)
            y += load_tap(weight_ptr, k, channel_offsets, channels) * x
        store_block(y_ptr, y, pixel_offsets, mask, channel_offsets, channels, int64_offsets)


@triton.jit
def _load_tap_dy(
    ptr,
    k: tl.constexpr,
    image,
    row,
    col,
    mask,
    channel_offsets,
    height,
    width,
    channels,
    stride: tl.constexpr,
    int64: tl.constexpr,
):
    """Return a block of dy, from where tap `k` takes the pixels (row, col); zero if nowhere."""
    row, col = row + 1 - k // 3, col + 1 - k % 3
    mask = mask & (row >= 0) & (col >= 0) & (row % stride == 0) & (col % stride == 0)
    row, col = row // stride, col // stride
    return load_padded(ptr, image, row, col, mask, channel_offsets, height, width, channels, int64)


@triton.jit
def _load_tap_dys(
    ptr,
    image,
    row,
    col,
    mask,
    channel_offsets,
    height,
    width,
    channels,
    stride: tl.constexpr,
    int64: tl.constexpr,
):
    """Return nine blocks of dy, from where each tap takes the pixels (row, col)."""
    return (
        _load_tap_dy(
            ptr, 0, image, row, col, mask, channel_offsets, height, width, channels, stride, int64
        ),
        _load_tap_dy(
            ptr, 1, image, row, col, mask, channel_offsets, height, width, channels, stride, int64
        ),
        _load_tap_dy(
            ptr, 2, image, row, col, mask, channel_offsets, height, width, channels, stride, int64
        ),
        _load_tap_dy(
            ptr, 3, image, row, col, mask, channel_offsets, height, width, channels, stride, int64
        ),
        _load_tap_dy(
            ptr, 4, image, row, col, mask, channel_offsets, height, width, channels, stride, int64
        ),
        _load_tap_dy(
            ptr, 5, image, row, col, mask, channel_offsets, height, width, channels, stride, int64
        ),
        _load_tap_dy(
            ptr, 6, image, row, col, mask, channel_offsets, height, width, channels, stride, int64
        ),
        _load_tap_dy(
            ptr, 7, image, row, col, mask, channel_offsets, height, width, channels, stride, int64
        ),
        _load_tap_dy(
            ptr, 8, image, row, col, mask, channel_offsets, height, width, channels, stride, int64
        ),
    )


@triton.jit
def _depthwise_strided_backward_kernel(
    x_ptr,
    weight_ptr,
    dy_ptr,
    dx_ptr,
    partial_ptr,
    height,
    width,
    out_height,
    out_width,
    pixels,
    steps,
    stride: tl.constexpr,
    has_relu: tl.constexpr,
    units,
    alignment: tl.constexpr,
    int64_offsets: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Compute some blocks of dx, and their share of the gradient of the weight."""
    channels = units * alignment
    first_offsets, channel_offsets = program_offsets(steps, block_pixels, block_channels)
    zeros = tl.zeros([block_pixels, block_channels], tl.float32)
    t0, t1, t2, t3, t4, t5, t6, t7, t8 = load_taps(weight_ptr, channel_offsets, channels)
    p0, p1, p2 = zeros, zeros, zeros
    p3, p4, p5 = zeros, zeros, zeros
    p6, p7, p8 = zeros, zeros, zeros
    for step in range(steps):
        pixel_offsets = first_offsets + step * block_pixels
        mask = pixel_offsets < pixels
        image, row, column = unravel_pixels(pixel_offsets, height, width)
        x = load_block(x_ptr, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
        if has_relu:
            x = relu(x)
        d0, d1, d2, d3, d4, d5, d6, d7, d8 = _load_tap_dys(
            dy_ptr,
            image,
            row,
            column,
            mask,
            channel_offsets,
            out_height,
            out_width,
            channels,
            stride,
            int64_offsets,
        )
        dx = t0 * d0 + t1 * d1 + t2 * d2 + t3 * d3 + t4 * d4 + t5 * d5 + t6 * d6 + t7 * d7 + t8 * d8
        p0, p1, p2 = p0 + x * d0, p1 + x * d1, p2 + x * d2
        p3, p4, p5 = p3 + x * d3, p4 + x * d4, p5 + x * d5
        p6, p7, p8 = p6 + x * d6, p7 + x * d7, p8 + x * d8
        if has_relu:
            dx = tl.where(x <= 0, 0.0, dx)
        store_block(dx_ptr, dx, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
    group = tl.program_id(0)
    store_tap_grads(
        partial_ptr, group, p0, p1, p2, p3, p4, p5, p6, p7, p8, channel_offsets, channels
    )
