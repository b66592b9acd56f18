"""Max-pool 3x3 with stride 2; of each output the place of the largest input, one byte."""
# mypy: allow-untyped-defs

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepablate.kernels.triton.memory import block, large, last, like, offsets, store, unit


def max_pool(x: Tensor, border: int) -> Tensor:
    """x (N, C, H, W) -> (N, C, (H + 2 border - 3) // 2 + 1, (W + 2 border - 3) // 2 + 1).

    As in torch a NaN is larger than all, and the gradient goes to the first of equals.
    """
    found: Tensor = _MaxPool.apply(x, border)
    return found


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, border: int) -> Tensor:
        x = last(x)
        images, channels, high, wide = x.shape
        rows, columns = ((size + 2 * border - 3) // 2 + 1 for size in (high, wide))
        y = like(x, (images, channels, rows, columns))
        places = torch.empty(y.numel(), dtype=torch.uint8, device=x.device)
        grid, blocks = _grid(y)
        sizes = (high, wide, rows, columns, border)
        _forward[grid](x, y, places, *sizes, large=large(x), **blocks)
        ctx.save_for_backward(places)
        ctx.sizes, ctx.border = x.shape, border
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dy = last(gradients[0])
        (places,) = ctx.saved_tensors
        dx = like(dy, ctx.sizes)
        grid, blocks = _grid(dx)
        sizes = (*dx.shape[2:], *dy.shape[2:], ctx.border)
        _backward[grid](dy, places, dx, *sizes, large=large(dx), **blocks)
        return dx, None


def _grid(over: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """Programs: blocks of pixels, blocks of channels; 1024 numbers each."""
    channels = over.shape[1]
    pixels = over.numel() // channels
    block_channels = block(channels)
    block_pixels = 1024 // block_channels
    return (triton.cdiv(pixels, block_pixels), triton.cdiv(channels, block_channels)), {
        "pixels": pixels,
        "units": channels // unit(channels),
        "unit": unit(channels),
        "block_pixels": block_pixels,
        "block_channels": block_channels,
        "num_warps": 4,
    }


@triton.jit
def _forward(
    x,
    y,
    places,
    high,
    wide,
    rows,
    columns,
    border,
    pixels,
    large: tl.constexpr,
    units,
    unit: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    channels = units * unit
    pixel = tl.program_id(0) * block_pixels + tl.arange(0, block_pixels)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    known = pixel < pixels
    image, i, j = pixel // (rows * columns), pixel // columns % rows, pixel % columns
    best = tl.full([block_pixels, block_channels], float("-inf"), tl.float32)
    place = tl.full([block_pixels, block_channels], 9, tl.int32)
    for k in tl.static_range(9):
        row, column = 2 * i - border + k // 3, 2 * j - border + k % 3
        inside = known & (row >= 0) & (row < high) & (column >= 0) & (column < wide)
        mask = inside[:, None] & (channel < channels)[None, :]
        near = offsets((image * high + row) * wide + column, channel, channels, large)
        value = tl.load(x + near, mask=mask, other=float("-inf")).to(tl.float32)
        # The first inside counts even if it is -inf, as all others are then.
        better = mask & ((place == 9) | (value > best) | (value != value))
        best = tl.where(better, value, best)
        place = tl.where(better, k, place)
    store(y, best, pixel, known, channel, channels, large)
    store(places, place, pixel, known, channel, channels, large)


@triton.jit
def _backward(
    dy,
    places,
    dx,
    high,
    wide,
    rows,
    columns,
    border,
    pixels,
    large: tl.constexpr,
    units,
    unit: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Each pixel gathers from the windows around it, two by two at most, in one order."""
    channels = units * unit
    pixel = tl.program_id(0) * block_pixels + tl.arange(0, block_pixels)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    known = pixel < pixels
    image, i, j = pixel // (high * wide), pixel // wide % high, pixel % wide
    value = tl.zeros([block_pixels, block_channels], tl.float32)
    for k in tl.static_range(4):
        row, column = (i + border) // 2 - 1 + k // 2, (j + border) // 2 - 1 + k % 2
        below, right = i + border - 2 * row, j + border - 2 * column  # place in that window
        inside = known & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        mask = (inside & (below < 3) & (right < 3))[:, None] & (channel < channels)[None, :]
        near = offsets((image * rows + row) * columns + column, channel, channels, large)
        place = tl.load(places + near, mask=mask, other=9).to(tl.int32)
        arrived = tl.load(dy + near, mask=mask, other=0.0).to(tl.float32)
        value += tl.where(place == (3 * below + right)[:, None], arrived, 0.0)
    store(dx, value, pixel, known, channel, channels, large)
