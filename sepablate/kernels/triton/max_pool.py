"""Max pooling 3x3 with stride 2; keeps the index of each maximum in its window, one byte each."""
# mypy: allow-untyped-defs

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepablate.kernels.triton.blocks import (
    block_mask,
    block_offsets,
    in_bounds,
    program_offsets,
    store_block,
    unravel_pixels,
)
from sepablate.kernels.triton.launch import LaunchConfig, channel_block_size, tile_pixels
from sepablate.kernels.triton.memory import channels_last, empty_channels_last, num_pixels


def max_pool(x: Tensor, padding: int) -> Tensor:
    """Return the 3x3 max pooling of `x` with stride 2.

    As in PyTorch, NaN counts as larger than any number, and among equal inputs the first of the
    window gets the gradient.

    Args:
        x: (N, C, H, W).
        padding: 0 or 1 pixels of -inf on each side.

    Returns:
        (N, C, H', W') in bf16, where H' = (H + 2 padding - 3) // 2 + 1, and W' alike.
    """
    y: Tensor = _MaxPool.apply(x, padding)
    return y


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int) -> Tensor:
        x = channels_last(x)
        images, channels, height, width = x.shape
        out_height, out_width = ((size + 2 * padding - 3) // 2 + 1 for size in (height, width))
        y = empty_channels_last((images, channels, out_height, out_width), x.device)
        indices = torch.empty(y.numel(), dtype=torch.uint8, device=x.device)
        sizes = (height, width, out_height, out_width, padding)
        config = _launch_config(y)
        config.launch(_max_pool_forward_kernel, x, y, indices, *sizes, num_pixels(y))
        ctx.save_for_backward(indices)
        ctx.input_shape, ctx.padding = x.shape, padding
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        dy = channels_last(grad_outputs[0])
        (indices,) = ctx.saved_tensors
        dx = empty_channels_last(ctx.input_shape, dy.device)
        sizes = (*dx.shape[2:], *dy.shape[2:], ctx.padding)
        _launch_config(dx).launch(
            _max_pool_backward_kernel, dy, indices, dx, *sizes, num_pixels(dx)
        )
        return dx, None


def _launch_config(output: Tensor) -> LaunchConfig:
    """Return a configuration with one block of 1024 elements of `output` per program."""
    block_channels = channel_block_size(output.shape[1])
    return tile_pixels(output, 1024 // block_channels, block_channels)


@triton.jit
def _max_pool_forward_kernel(
    x_ptr,
    y_ptr,
    indices_ptr,
    height,
    width,
    out_height,
    out_width,
    padding,
    pixels,
    units,
    alignment: tl.constexpr,
    int64_offsets: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Compute one block of maxima and of their indices in the windows."""
    channels = units * alignment
    pixel_offsets, channel_offsets = program_offsets(1, block_pixels, block_channels)
    mask = pixel_offsets < pixels
    image, out_row, out_column = unravel_pixels(pixel_offsets, out_height, out_width)
    maximum = tl.full([block_pixels, block_channels], float("-inf"), tl.float32)
    index = tl.full([block_pixels, block_channels], 9, tl.int32)
    for k in tl.static_range(9):
        row, column = 2 * out_row - padding + k // 3, 2 * out_column - padding + k % 3
        in_image = in_bounds(mask, row, column, height, width)
        in_block = block_mask(in_image, channel_offsets, channels)
        input_offsets = (image * height + row) * width + column
        offsets = block_offsets(input_offsets, channel_offsets, channels, int64_offsets)
        x = tl.load(x_ptr + offsets, mask=in_block, other=float("-inf")).to(tl.float32)
        # The first pixel in bounds counts even if it is -inf: all others are then -inf, too.
        is_larger = in_block & ((index == 9) | (x > maximum) | (x != x))
        maximum = tl.where(is_larger, x, maximum)
        index = tl.where(is_larger, k, index)
    store_block(y_ptr, maximum, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
    store_block(indices_ptr, index, pixel_offsets, mask, channel_offsets, channels, int64_offsets)


@triton.jit
def _max_pool_backward_kernel(
    dy_ptr,
    indices_ptr,
    dx_ptr,
    height,
    width,
    out_height,
    out_width,
    padding,
    pixels,
    units,
    alignment: tl.constexpr,
    int64_offsets: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Compute one block of dx: each pixel adds up the windows that hold it, four at most."""
    channels = units * alignment
    pixel_offsets, channel_offsets = program_offsets(1, block_pixels, block_channels)
    mask = pixel_offsets < pixels
    image, row, column = unravel_pixels(pixel_offsets, height, width)
    dx = tl.zeros([block_pixels, block_channels], tl.float32)
    for k in tl.static_range(4):
        out_row = (row + padding) // 2 - 1 + k // 2
        out_column = (column + padding) // 2 - 1 + k % 2
        window_row = row + padding - 2 * out_row
        window_column = column + padding - 2 * out_column
        in_window = in_bounds(mask, out_row, out_column, out_height, out_width)
        in_window = in_window & (window_row < 3) & (window_column < 3)
        in_block = block_mask(in_window, channel_offsets, channels)
        output_offsets = (image * out_height + out_row) * out_width + out_column
        offsets = block_offsets(output_offsets, channel_offsets, channels, int64_offsets)
        index = tl.load(indices_ptr + offsets, mask=in_block, other=9).to(tl.int32)
        dy = tl.load(dy_ptr + offsets, mask=in_block, other=0.0).to(tl.float32)
        dx += tl.where(index == (3 * window_row + window_column)[:, None], dy, 0.0)
    store_block(dx_ptr, dx, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
