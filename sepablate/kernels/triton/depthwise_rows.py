"""Depthwise 3x3 convolution with stride 1.

Each program walks down a strip of rows, for a block of columns (of all images, side by side) and a
block of channels. It loads each row once and adds it to the three rows of the result that depend
on it: most numbers are read from memory about once, and from the caches three times rather than
nine.
"""
# mypy: allow-untyped-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepablate.kernels.triton.blocks import load_padded, relu, store_block
from sepablate.kernels.triton.depthwise_taps import load_taps, store_tap_grads
from sepablate.kernels.triton.launch import NUM_SMS, LaunchConfig, channel_block_size
from sepablate.kernels.triton.memory import empty_channels_last

TARGET_PROGRAMS = 16 * NUM_SMS  # as many as run at once, or somewhat more
MIN_ROWS = 2  # of a strip, as each strip loads two further rows
FORWARD = (1024, 4)  # elements of one row of a block, and the warps that compute it
BACKWARD = (512, 4)  # fewer elements, because the sums fill the registers


def forward(x: Tensor, weight: Tensor, has_relu: bool) -> Tensor:
    """Return the convolution of `x`, or of ReLU(x).

    Args:
        x: (N, C, H, W) in bf16 and channels_last memory.
        weight: (C, 1, 3, 3) in fp32, contiguous.
        has_relu: whether to apply a ReLU to `x` first.

    Returns:
        (N, C, H, W) in bf16 and channels_last memory.
    """
    images, channels, height, width = x.shape
    y = empty_channels_last(x.shape, x.device)
    elements, warps = FORWARD
    # A thread loads 16 bytes, or 8 where rows are aligned to no more.
    config = _launch_config(x, elements // 2 if channels % 8 else elements, warps)
    sizes = (images, height, width, config.steps)
    kernel = _depthwise_rows_forward_kernel
    config.launch(kernel, x, weight, y, *sizes, has_relu=has_relu)
    return y


def backward(x: Tensor, weight: Tensor, dy: Tensor, has_relu: bool) -> tuple[Tensor, Tensor]:
    """Return the gradients of `x` and `weight`.

    Args:
        x: as in `forward`.
        weight: as in `forward`.
        dy: gradient of the result, (N, C, H, W) in bf16 and channels_last memory.
        has_relu: as in `forward`.
    """
    images, _, height, width = x.shape
    dx = empty_channels_last(x.shape, x.device)
    config = _launch_config(x, *BACKWARD)
    partial = torch.empty((config.num_groups, *weight.shape), device=x.device)
    sizes = (images, height, width, config.steps)
    kernel = _depthwise_rows_backward_kernel
    config.launch(kernel, x, weight, dy, dx, partial, *sizes, has_relu=has_relu)
    return dx, partial.sum(0)


def _launch_config(x: Tensor, block_elements: int, num_warps: int) -> LaunchConfig:
    """Return a grid (blocks of columns, strips, blocks of channels) and a step per row of a strip.

    Args:
        x: (N, C, H, W).
        block_elements: elements of `x` in one row of a block.
        num_warps: warps that run one program.
    """
    images, channels, height, width = x.shape
    block_channels = channel_block_size(channels)
    block_pixels = block_elements // block_channels
    column_blocks = triton.cdiv(images * width, block_pixels)
    channel_blocks = triton.cdiv(channels, block_channels)
    max_strips = triton.cdiv(TARGET_PROGRAMS, column_blocks * channel_blocks)
    rows = triton.cdiv(height, min(max_strips, triton.cdiv(height, MIN_ROWS)))
    return LaunchConfig(
        grid=(column_blocks, triton.cdiv(height, rows), channel_blocks),
        steps=rows,
        channels=channels,
        block_pixels=block_pixels,
        block_channels=block_channels,
        num_warps=num_warps,
    )


@triton.jit
def _strip_offsets(
    images, height, width, rows, block_pixels: tl.constexpr, block_channels: tl.constexpr
):
    """Return a program's images, columns and their mask, first and end row, channel offsets."""
    pixel_offsets = tl.program_id(0) * block_pixels + tl.arange(0, block_pixels)
    channel_offsets = tl.program_id(2) * block_channels + tl.arange(0, block_channels)
    mask = pixel_offsets < images * width
    image, column = pixel_offsets // width, pixel_offsets % width
    first_row = tl.program_id(1) * rows + tl.zeros_like(column)  # one per column, as in masks
    end_row = tl.minimum(first_row + rows, height)
    return image, column, mask, first_row, end_row, channel_offsets


@triton.jit
def _load_three(
    ptr,
    image,
    row,
    column,
    mask,
    channel_offsets,
    height,
    width,
    channels,
    int64_offsets: tl.constexpr,
):
    """Return the blocks of the pixels to the left, in the middle and to the right."""
    left = load_padded(
        ptr, image, row, column - 1, mask, channel_offsets, height, width, channels, int64_offsets
    )
    middle = load_padded(
        ptr, image, row, column, mask, channel_offsets, height, width, channels, int64_offsets
    )
    right = load_padded(
        ptr, image, row, column + 1, mask, channel_offsets, height, width, channels, int64_offsets
    )
    return left, middle, right


@triton.jit
def _depthwise_rows_forward_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    images,
    height,
    width,
    rows,
    has_relu: tl.constexpr,
    units,
    alignment: tl.constexpr,
    int64_offsets: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Compute a strip of the result."""
    channels = units * alignment
    image, column, mask, first_row, end_row, channel_offsets = _strip_offsets(
        images, height, width, rows, block_pixels, block_channels
    )
    t0, t1, t2, t3, t4, t5, t6, t7, t8 = load_taps(weight_ptr, channel_offsets, channels)
    sum_above = tl.zeros([block_pixels, block_channels], tl.float32)  # of y, one row up, so far
    sum_here = tl.zeros([block_pixels, block_channels], tl.float32)
    for step in range(rows + 2):
        row = first_row - 1 + step
        a, b, c = _load_three(
            x_ptr, image, row, column, mask, channel_offsets, height, width, channels, int64_offsets
        )
        if has_relu:
            a, b, c = relu(a), relu(b), relu(c)
        y = sum_above + t6 * a + t7 * b + t8 * c
        sum_above = sum_here + t3 * a + t4 * b + t5 * c
        sum_here = t0 * a + t1 * b + t2 * c
        in_strip = mask & (row > first_row) & (row <= end_row)
        pixel_offsets = (image * height + row - 1) * width + column
        store_block(y_ptr, y, pixel_offsets, in_strip, channel_offsets, channels, int64_offsets)


@triton.jit
def _depthwise_rows_backward_kernel(
    x_ptr,
    weight_ptr,
    dy_ptr,
    dx_ptr,
    partial_ptr,
    images,
    height,
    width,
    rows,
    has_relu: tl.constexpr,
    units,
    alignment: tl.constexpr,
    int64_offsets: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Compute a strip of dx, and its share of the gradient of the weight."""
    channels = units * alignment
    image, column, mask, first_row, end_row, channel_offsets = _strip_offsets(
        images, height, width, rows, block_pixels, block_channels
    )
    t0, t1, t2, t3, t4, t5, t6, t7, t8 = load_taps(weight_ptr, channel_offsets, channels)
    zeros = tl.zeros([block_pixels, block_channels], tl.float32)
    sum_above, sum_here, x_above = zeros, zeros, zeros
    # Not `zeros`: the loop assigns x_here to x_above, and if both began as the same value Triton
    # would take x_above for a constant of the loop.
    x_here = tl.zeros([block_pixels, block_channels], tl.float32)
    p0, p1, p2 = zeros, zeros, zeros
    p3, p4, p5 = zeros, zeros, zeros
    p6, p7, p8 = zeros, zeros, zeros
    for step in range(rows + 2):
        row = first_row - 1 + step
        a, b, c = _load_three(
            dy_ptr,
            image,
            row,
            column,
            mask,
            channel_offsets,
            height,
            width,
            channels,
            int64_offsets,
        )
        # The rows of other strips are left out: they count there.
        x_mask = mask & (row + 1 < end_row)
        x_below = load_padded(
            x_ptr,
            image,
            row + 1,
            column,
            x_mask,
            channel_offsets,
            height,
            width,
            channels,
            int64_offsets,
        )
        if has_relu:
            x_below = relu(x_below)
        # Tap 3 i + j adds pixel (r, s) of x to pixel (r + 1 - i, s + 1 - j) of y.
        dx = sum_above + t2 * a + t1 * b + t0 * c
        sum_above = sum_here + t5 * a + t4 * b + t3 * c
        sum_here = t8 * a + t7 * b + t6 * c
        p0, p1, p2 = p0 + x_above * c, p1 + x_above * b, p2 + x_above * a
        p3, p4, p5 = p3 + x_here * c, p4 + x_here * b, p5 + x_here * a
        p6, p7, p8 = p6 + x_below * c, p7 + x_below * b, p8 + x_below * a
        if has_relu:
            dx = tl.where(x_above <= 0, 0.0, dx)
        in_strip = mask & (row > first_row) & (row <= end_row)
        pixel_offsets = (image * height + row - 1) * width + column
        store_block(dx_ptr, dx, pixel_offsets, in_strip, channel_offsets, channels, int64_offsets)
        x_above, x_here = x_here, x_below
    group = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    store_tap_grads(
        partial_ptr, group, p0, p1, p2, p3, p4, p5, p6, p7, p8, channel_offsets, channels
    )
