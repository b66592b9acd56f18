"""Depthwise convolution with stride 1.

A program walks down a strip of rows, for a block of columns (of all images, side by side) and a
block of channels. Each row is loaded once and adds to the three rows of the result that it is near
to: so the memory gives each number little more than once, and the caches three times, not nine.
"""
# mypy: allow-untyped-defs

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepablate.kernels.triton.memory import (
    block,
    large,
    like,
    load_at,
    load_tap,
    positive,
    store,
    store_tap,
    unit,
)

PROGRAMS = 132 * 16  # all that run at once on the 132 multiprocessors of an H100, or some more
LEAST_ROWS = 2  # of a strip, as two more are loaded


def forward(x: Tensor, weight: Tensor, relu: bool) -> Tensor:
    """x (N, C, H, W), weight (C, 1, 3, 3) -> (N, C, H, W)."""
    y = like(x, x.shape)
    grid, blocks = _grid(x, 512 if x.shape[1] % 8 else 1024)  # a thread loads 8 or 16 bytes
    _forward[grid](x, weight, y, relu=relu, **blocks)
    return y


def backward(x: Tensor, weight: Tensor, dy: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the weight; all sizes as in `forward`."""
    dx = like(x, x.shape)
    grid, blocks = _grid(x, 512)  # fewer, because the sums fill the registers
    parts = torch.empty((grid[0] * grid[1], *weight.shape), device=x.device)
    _backward[grid](x, weight, dy, dx, parts, relu=relu, **blocks)
    return dx, parts.sum(0)


def _grid(x: Tensor, numbers: int) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """Programs: blocks of columns, strips, blocks of channels; `numbers`: of a block of one row."""
    images, channels, high, wide = x.shape
    block_channels = block(channels)
    block_columns = numbers // block_channels
    columns = triton.cdiv(images * wide, block_columns)
    parts = triton.cdiv(channels, block_channels)
    strips = min(triton.cdiv(PROGRAMS, columns * parts), triton.cdiv(high, LEAST_ROWS))
    rows = triton.cdiv(high, strips)
    return (columns, triton.cdiv(high, rows), parts), {
        "images": images,
        "high": high,
        "wide": wide,
        "rows": rows,
        "units": channels // unit(channels),
        "unit": unit(channels),
        "large": large(x),
        "block_columns": block_columns,
        "block_channels": block_channels,
        "num_warps": 4,
    }


@triton.jit
def _forward(
    x,
    weight,
    y,
    images,
    high,
    wide,
    rows,
    relu: tl.constexpr,
    units,
    unit: tl.constexpr,
    large: tl.constexpr,
    block_columns: tl.constexpr,
    block_channels: tl.constexpr,
):
    channels = units * unit
    place = tl.program_id(0) * block_columns + tl.arange(0, block_columns)
    channel = tl.program_id(2) * block_channels + tl.arange(0, block_channels)
    known = place < images * wide
    image, column = place // wide, place % wide
    begin = tl.program_id(1) * rows + tl.zeros_like(column)  # of each column, as masks are
    end = tl.minimum(begin + rows, high)
    t0, t1 = load_tap(weight, channel, 0, channels), load_tap(weight, channel, 1, channels)
    t2, t3 = load_tap(weight, channel, 2, channels), load_tap(weight, channel, 3, channels)
    t4, t5 = load_tap(weight, channel, 4, channels), load_tap(weight, channel, 5, channels)
    t6, t7 = load_tap(weight, channel, 6, channels), load_tap(weight, channel, 7, channels)
    t8 = load_tap(weight, channel, 8, channels)
    above = tl.zeros([block_columns, block_channels], tl.float32)  # the result one row up, so far
    here = tl.zeros([block_columns, block_channels], tl.float32)
    for step in range(rows + 2):
        row = begin - 1 + step
        a = load_at(x, image, row, column - 1, known, channel, high, wide, channels, large)
        b = load_at(x, image, row, column, known, channel, high, wide, channels, large)
        c = load_at(x, image, row, column + 1, known, channel, high, wide, channels, large)
        if relu:
            a, b, c = positive(a), positive(b), positive(c)
        done = above + t6 * a + t7 * b + t8 * c
        above = here + t3 * a + t4 * b + t5 * c
        here = t0 * a + t1 * b + t2 * c
        inside = known & (row > begin) & (row <= end)
        pixel = (image * high + row - 1) * wide + column
        store(y, done, pixel, inside, channel, channels, large)


@triton.jit
def _backward(
    x,
    weight,
    dy,
    dx,
    parts,
    images,
    high,
    wide,
    rows,
    relu: tl.constexpr,
    units,
    unit: tl.constexpr,
    large: tl.constexpr,
    block_columns: tl.constexpr,
    block_channels: tl.constexpr,
):
    channels = units * unit
    place = tl.program_id(0) * block_columns + tl.arange(0, block_columns)
    channel = tl.program_id(2) * block_channels + tl.arange(0, block_channels)
    known = place < images * wide
    image, column = place // wide, place % wide
    begin = tl.program_id(1) * rows + tl.zeros_like(column)  # of each column, as masks are
    end = tl.minimum(begin + rows, high)
    t0, t1 = load_tap(weight, channel, 0, channels), load_tap(weight, channel, 1, channels)
    t2, t3 = load_tap(weight, channel, 2, channels), load_tap(weight, channel, 3, channels)
    t4, t5 = load_tap(weight, channel, 4, channels), load_tap(weight, channel, 5, channels)
    t6, t7 = load_tap(weight, channel, 6, channels), load_tap(weight, channel, 7, channels)
    t8 = load_tap(weight, channel, 8, channels)
    zeros = tl.zeros([block_columns, block_channels], tl.float32)
    above, here, x_above = zeros, zeros, zeros
    # Of its own: Triton sees no change where a variable takes over the value it began with.
    x_here = tl.zeros([block_columns, block_channels], tl.float32)
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = (
        zeros,
        zeros,
        zeros,
        zeros,
        zeros,
        zeros,
        zeros,
        zeros,
        zeros,
    )
    for step in range(rows + 2):
        row = begin - 1 + step
        a = load_at(dy, image, row, column - 1, known, channel, high, wide, channels, large)
        b = load_at(dy, image, row, column, known, channel, high, wide, channels, large)
        c = load_at(dy, image, row, column + 1, known, channel, high, wide, channels, large)
        own = known & (row + 1 < end)  # no other strip's rows, which count there
        x_below = load_at(x, image, row + 1, column, own, channel, high, wide, channels, large)
        if relu:
            x_below = positive(x_below)
        # Tap k of the weight takes x to the result that lies 1 - k below and to the right.
        done = above + t2 * a + t1 * b + t0 * c
        above = here + t5 * a + t4 * b + t3 * c
        here = t8 * a + t7 * b + t6 * c
        s0, s1, s2 = s0 + x_above * c, s1 + x_above * b, s2 + x_above * a
        s3, s4, s5 = s3 + x_here * c, s4 + x_here * b, s5 + x_here * a
        s6, s7, s8 = s6 + x_below * c, s7 + x_below * b, s8 + x_below * a
        if relu:
            done = tl.where(x_above <= 0, 0.0, done)
        inside = known & (row > begin) & (row <= end)
        pixel = (image * high + row - 1) * wide + column
        store(dx, done, pixel, inside, channel, channels, large)
        x_above, x_here = x_here, x_below
    part = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    store_tap(parts, s0, channel, part, 0, channels)
    store_tap(parts, s1, channel, part, 1, channels)
    store_tap(parts, s2, channel, part, 2, channels)
    store_tap(parts, s3, channel, part, 3, channels)
    store_tap(parts, s4, channel, part, 4, channels)
    store_tap(parts, s5, channel, part, 5, channels)
    store_tap(parts, s6, channel, part, 6, channels)
    store_tap(parts, s7, channel, part, 7, channels)
    store_tap(parts, s8, channel, part, 8, channels)
