"""Kernels of batch norm.

Partial results are (groups, 2, C): two numbers per channel and group of pixels, where a group holds
the pixels of one program. `stats_ptr` points to (2, C): mean, and 1 / standard deviation (rstd).
"""
# mypy: allow-untyped-defs

import triton
import triton.language as tl

from sepablate.kernels.triton.blocks import load_block, program_offsets, relu, store_block


@triton.jit
def load_channels(ptr, channel_offsets, channels):
    """Return one number per channel."""
    return tl.load(ptr + channel_offsets, mask=channel_offsets < channels, other=0.0)


@triton.jit
def store_channels(ptr, value, channel_offsets, channels):
    """Store one number per channel."""
    tl.store(ptr + channel_offsets, value, mask=channel_offsets < channels)


@triton.jit
def load_partial(
    partial_ptr, which: tl.constexpr, channel_offsets, channels, block_groups: tl.constexpr
):
    """Return the first (0) or second (1) numbers of all groups, (block_groups, block_channels)."""
    group = tl.arange(0, block_groups)
    offsets = (group * 2 + which)[:, None] * channels + channel_offsets[None, :]
    mask = (group < tl.num_programs(0))[:, None] & (channel_offsets < channels)[None, :]
    return tl.load(partial_ptr + offsets, mask=mask, other=0.0)


@triton.jit
def combine_stats(
    partial_ptr, pixels, group_size, channel_offsets, channels, block_groups: tl.constexpr
):
    """Return the mean and variance of all groups (parallel variance, Chan et al. 1979)."""
    group_start = tl.arange(0, block_groups) * group_size
    count = tl.maximum(tl.minimum(pixels - group_start, group_size), 0).to(tl.float32)[:, None]
    shift = load_channels(partial_ptr, channel_offsets, channels)
    group_mean = load_partial(partial_ptr, 0, channel_offsets, channels, block_groups)
    deviation = group_mean - shift[None, :]
    mean = shift + tl.sum(tl.where(count > 0, deviation * count, 0.0), 0) / pixels
    deviation -= (mean - shift)[None, :]
    group_squares = load_partial(partial_ptr, 1, channel_offsets, channels, block_groups)
    squares = group_squares + deviation * deviation * count
    return mean, tl.sum(tl.where(count > 0, squares, 0.0), 0) / pixels


@triton.jit
def bn_stats(
    x_ptr,
    partial_ptr,
    pixels,
    steps,
    units,
    alignment: tl.constexpr,
    int64_offsets: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Compute a group's mean and its sum of squared deviations from the mean."""
    channels = units * alignment
    first_offsets, channel_offsets = program_offsets(steps, block_pixels, block_channels)
    group_start = tl.program_id(0) * steps * block_pixels
    shift_row = group_start
    if int64_offsets:
        shift_row = group_start.to(tl.int64)
    shift = load_channels(x_ptr + shift_row * channels, channel_offsets, channels).to(tl.float32)
    sums = tl.zeros([block_pixels, block_channels], tl.float32)
    squares = tl.zeros([block_pixels, block_channels], tl.float32)
    for step in range(steps):
        pixel_offsets = first_offsets + step * block_pixels
        mask = pixel_offsets < pixels
        x = load_block(x_ptr, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
        deviation = tl.where(mask[:, None], x - shift[None, :], 0.0)
        sums += deviation
        squares += deviation * deviation
    count = tl.minimum(pixels - group_start, steps * block_pixels).to(tl.float32)
    total = tl.sum(sums, 0)
    squared_deviations = tl.sum(squares, 0) - total * total / count
    group_ptr = partial_ptr + tl.program_id(0) * 2 * channels
    store_channels(group_ptr, shift + total / count, channel_offsets, channels)
    store_channels(group_ptr + channels, relu(squared_deviations), channel_offsets, channels)


@triton.jit
def bn_forward(
    x_ptr,
    residual_ptr,
    y_ptr,
    partial_ptr,
    stats_ptr,
    weight_ptr,
    bias_ptr,
    running_mean_ptr,
    running_var_ptr,
    momentum,
    eps,
    bessel_correction,
    pixels,
    steps,
    has_relu: tl.constexpr,
    has_residual: tl.constexpr,
    block_groups: tl.constexpr,
    units,
    alignment: tl.constexpr,
    int64_offsets: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Combine the statistics of all groups, and normalize one group."""
    channels = units * alignment
    first_offsets, channel_offsets = program_offsets(steps, block_pixels, block_channels)
    mean, var = combine_stats(
        partial_ptr, pixels, steps * block_pixels, channel_offsets, channels, block_groups
    )
    rstd = 1 / tl.sqrt(var + eps)
    if tl.program_id(0) == 0:
        store_channels(stats_ptr, mean, channel_offsets, channels)
        store_channels(stats_ptr + channels, rstd, channel_offsets, channels)
        running = load_channels(running_mean_ptr, channel_offsets, channels)
        running += momentum * (mean - running)
        store_channels(running_mean_ptr, running, channel_offsets, channels)
        running = load_channels(running_var_ptr, channel_offsets, channels)
        running += momentum * (var * bessel_correction - running)
        store_channels(running_var_ptr, running, channel_offsets, channels)
    scale = (load_channels(weight_ptr, channel_offsets, channels) * rstd)[None, :]
    bias = load_channels(bias_ptr, channel_offsets, channels)[None, :]
    for step in range(steps):
        pixel_offsets = first_offsets + step * block_pixels
        mask = pixel_offsets < pixels
        x = load_block(x_ptr, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
        y = (x - mean[None, :]) * scale + bias
        if has_relu:
            y = relu(y)
        if has_residual:
            y += load_block(
                residual_ptr, pixel_offsets, mask, channel_offsets, channels, int64_offsets
            )
        store_block(y_ptr, y, pixel_offsets, mask, channel_offsets, channels, int64_offsets)


@triton.jit
def bn_reduce_grads(
    x_ptr,
    dy_ptr,
    partial_ptr,
    stats_ptr,
    weight_ptr,
    bias_ptr,
    pixels,
    steps,
    has_relu: tl.constexpr,
    units,
    alignment: tl.constexpr,
    int64_offsets: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Compute a group's sums of dy and of dy * (x - mean)."""
    channels = units * alignment
    first_offsets, channel_offsets = program_offsets(steps, block_pixels, block_channels)
    mean = load_channels(stats_ptr, channel_offsets, channels)[None, :]
    rstd = load_channels(stats_ptr + channels, channel_offsets, channels)[None, :]
    scale = load_channels(weight_ptr, channel_offsets, channels)[None, :] * rstd
    bias = load_channels(bias_ptr, channel_offsets, channels)[None, :]
    sums = tl.zeros([block_pixels, block_channels], tl.float32)
    products = tl.zeros([block_pixels, block_channels], tl.float32)
    for step in range(steps):
        pixel_offsets = first_offsets + step * block_pixels
        mask = pixel_offsets < pixels
        x = load_block(x_ptr, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
        deviation = x - mean
        dy = load_block(dy_ptr, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
        if has_relu:
            dy = tl.where(deviation * scale + bias <= 0, 0.0, dy)
        sums += dy
        products += dy * deviation
    group_ptr = partial_ptr + tl.program_id(0) * 2 * channels
    store_channels(group_ptr, tl.sum(sums, 0), channel_offsets, channels)
    store_channels(group_ptr + channels, tl.sum(products, 0), channel_offsets, channels)


@triton.jit
def bn_backward(
    x_ptr,
    dy_ptr,
    dx_ptr,
    partial_ptr,
    stats_ptr,
    weight_ptr,
    bias_ptr,
    dweight_ptr,
    dbias_ptr,
    pixels,
    steps,
    has_relu: tl.constexpr,
    block_groups: tl.constexpr,
    units,
    alignment: tl.constexpr,
    int64_offsets: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """Combine the sums of all groups to dweight and dbias, and compute dx of one group."""
    channels = units * alignment
    first_offsets, channel_offsets = program_offsets(steps, block_pixels, block_channels)
    sum_dy = tl.sum(load_partial(partial_ptr, 0, channel_offsets, channels, block_groups), 0)
    product = tl.sum(load_partial(partial_ptr, 1, channel_offsets, channels, block_groups), 0)
    mean = load_channels(stats_ptr, channel_offsets, channels)[None, :]
    rstd = load_channels(stats_ptr + channels, channel_offsets, channels)
    if tl.program_id(0) == 0:
        store_channels(dweight_ptr, product * rstd, channel_offsets, channels)
        store_channels(dbias_ptr, sum_dy, channel_offsets, channels)
    slope = (rstd * rstd * product / pixels)[None, :]
    mean_dy = (sum_dy / pixels)[None, :]
    scale = (load_channels(weight_ptr, channel_offsets, channels) * rstd)[None, :]
    bias = load_channels(bias_ptr, channel_offsets, channels)[None, :]
    for step in range(steps):
        pixel_offsets = first_offsets + step * block_pixels
        mask = pixel_offsets < pixels
        x = load_block(x_ptr, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
        deviation = x - mean
        dy = load_block(dy_ptr, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
        if has_relu:
            dy = tl.where(deviation * scale + bias <= 0, 0.0, dy)
        dx = scale * (dy - mean_dy - deviation * slope)
        store_block(dx_ptr, dx, pixel_offsets, mask, channel_offsets, channels, int64_offsets)
