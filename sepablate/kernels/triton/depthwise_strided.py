"""Depthwise convolution with any stride: plain blocks of pixels, as few layers have a stride."""
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
    load,
    load_at,
    load_tap,
    positive,
    store,
    store_tap,
    unit,
)

PROGRAMS = 132 * 16


def forward(x: Tensor, weight: Tensor, stride: int, relu: bool) -> Tensor:
    """x (N, C, H, W), weight (C, 1, 3, 3) -> (N, C, H', W')."""
    images, channels, high, wide = x.shape
    y = like(x, (images, channels, (high - 1) // stride + 1, (wide - 1) // stride + 1))
    grid, blocks = _grid(y, 1024)
    sizes = (high, wide, *y.shape[2:])
    _forward[grid](x, weight, y, *sizes, stride=stride, relu=relu, large=large(x), **blocks)
    return y


def backward(
    x: Tensor, weight: Tensor, dy: Tensor, stride: int, relu: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the weight; all sizes as in `forward`."""
    dx = like(x, x.shape)
    grid, blocks = _grid(x, 512)
    parts = torch.empty((grid[0], *weight.shape), device=x.device)
    sizes = (*x.shape[2:], *dy.shape[2:])
    _backward[grid](
        x, weight, dy, dx, parts, *sizes, stride=stride, relu=relu, large=large(x), **blocks
    )
    return dx, parts.sum(0)


def _grid(over: Tensor, numbers: int) -> tuple[tuple[int, int], dict[str, Any]]:
    """Programs: groups of blocks of pixels, blocks of channels; `numbers`: of a block."""
    channels = over.shape[1]
    pixels = over.numel() // channels
    block_channels = block(channels)
    block_pixels = numbers // block_channels
    parts = triton.cdiv(channels, block_channels)
    steps = triton.cdiv(pixels, block_pixels * triton.cdiv(PROGRAMS, parts))
    return (triton.cdiv(pixels, steps * block_pixels), parts), {
        "pixels": pixels,
        "steps": steps,
        "units": channels // unit(channels),
        "unit": unit(channels),
        "block_pixels": block_pixels,
        "block_channels": block_channels,
        "num_warps": 4,
    }


@triton.jit
def _forward(
    x,
    weight,
    y,
    high,
    wide,
    rows,
    columns,
    pixels,
    steps,
    stride: tl.constexpr,
    relu: tl.constexpr,
    large: tl.constexpr,
    units,
    unit: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    channels = units * unit
    first = tl.program_id(0) * steps * block_pixels + tl.arange(0, block_pixels)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    for step in range(steps):
        pixel = first + step * block_pixels
        known = pixel < pixels
        image, i, j = pixel // (rows * columns), pixel // columns % rows, pixel % columns
        value = tl.zeros([block_pixels, block_channels], tl.float32)
        for k in tl.static_range(9):
            row, column = i * stride - 1 + k // 3, j * stride - 1 + k % 3
            near = load_at(x, image, row, column, known, channel, high, wide, channels, large)
            if relu:
                near = positive(near)
            value += load_tap(weight, channel, k, channels) * near
        store(y, value, pixel, known, channel, channels, large)


@triton.jit
def _near(
    dy,
    image,
    i,
    j,
    known,
    channel,
    rows,
    columns,
    k: tl.constexpr,
    stride: tl.constexpr,
    channels,
    large: tl.constexpr,
):
    """The gradient of the result to which tap k takes pixel (i, j), or 0."""
    row, column = i + 1 - k // 3, j + 1 - k % 3
    met = known & (row >= 0) & (column >= 0) & (row % stride == 0) & (column % stride == 0)
    row, column = row // stride, column // stride
    return load_at(dy, image, row, column, met, channel, rows, columns, channels, large)


@triton.jit
def _backward(
    x,
    weight,
    dy,
    dx,
    parts,
    high,
    wide,
    rows,
    columns,
    pixels,
    steps,
    stride: tl.constexpr,
    relu: tl.constexpr,
    large: tl.constexpr,
    units,
    unit: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    channels = units * unit
    first = tl.program_id(0) * steps * block_pixels + tl.arange(0, block_pixels)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    zeros = tl.zeros([block_pixels, block_channels], tl.float32)
    t0, t1 = load_tap(weight, channel, 0, channels), load_tap(weight, channel, 1, channels)
    t2, t3 = load_tap(weight, channel, 2, channels), load_tap(weight, channel, 3, channels)
    t4, t5 = load_tap(weight, channel, 4, channels), load_tap(weight, channel, 5, channels)
    t6, t7 = load_tap(weight, channel, 6, channels), load_tap(weight, channel, 7, channels)
    t8 = load_tap(weight, channel, 8, channels)
    s0, s1, s2 = zeros, zeros, zeros
    s3, s4, s5 = zeros, zeros, zeros
    s6, s7, s8 = zeros, zeros, zeros
    for step in range(steps):
        pixel = first + step * block_pixels
        known = pixel < pixels
        image, i, j = pixel // (high * wide), pixel // wide % high, pixel % wide
        value = load(x, pixel, known, channel, channels, large)
        if relu:
            value = positive(value)
        n0 = _near(dy, image, i, j, known, channel, rows, columns, 0, stride, channels, large)
        n1 = _near(dy, image, i, j, known, channel, rows, columns, 1, stride, channels, large)
        n2 = _near(dy, image, i, j, known, channel, rows, columns, 2, stride, channels, large)
        n3 = _near(dy, image, i, j, known, channel, rows, columns, 3, stride, channels, large)
        n4 = _near(dy, image, i, j, known, channel, rows, columns, 4, stride, channels, large)
        n5 = _near(dy, image, i, j, known, channel, rows, columns, 5, stride, channels, large)
        n6 = _near(dy, image, i, j, known, channel, rows, columns, 6, stride, channels, large)
        n7 = _near(dy, image, i, j, known, channel, rows, columns, 7, stride, channels, large)
        n8 = _near(dy, image, i, j, known, channel, rows, columns, 8, stride, channels, large)
        change = (
            t0 * n0 + t1 * n1 + t2 * n2 + t3 * n3 + t4 * n4 + t5 * n5 + t6 * n6 + t7 * n7 + t8 * n8
        )
        s0, s1, s2 = s0 + value * n0, s1 + value * n1, s2 + value * n2
        s3, s4, s5 = s3 + value * n3, s4 + value * n4, s5 + value * n5
        s6, s7, s8 = s6 + value * n6, s7 + value * n7, s8 + value * n8
        if relu:
            change = tl.where(value <= 0, 0.0, change)
        store(dx, change, pixel, known, channel, channels, large)
    part = tl.program_id(0)
    store_tap(parts, s0, channel, part, 0, channels)
    store_tap(parts, s1, channel, part, 1, channels)
    store_tap(parts, s2, channel, part, 2, channels)
    store_tap(parts, s3, channel, part, 3, channels)
    store_tap(parts, s4, channel, part, 4, channels)
    store_tap(parts, s5, channel, part, 5, channels)
    store_tap(parts, s6, channel, part, 6, channels)
    store_tap(parts, s7, channel, part, 7, channels)
    store_tap(parts, s8, channel, part, 8, channels)
