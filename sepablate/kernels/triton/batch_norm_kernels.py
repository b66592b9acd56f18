"""The kernels of batch norm."""
# mypy: allow-untyped-defs

import triton
import triton.language as tl

from sepablate.kernels.triton.batch_norm_groups import first_block, keep, numbers, of_groups
from sepablate.kernels.triton.memory import load, positive, store


@triton.jit
def measure(
    x,
    groups,
    pixels,
    steps,
    units,
    unit: tl.constexpr,
    large: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """The groups' means, and squares around them."""
    channels = units * unit
    first, channel = first_block(pixels, steps, block_pixels, block_channels)
    before = tl.program_id(0) * steps * block_pixels
    start = before
    if large:
        start = before.to(tl.int64)
    shift = numbers(x + start * channels, channel, channels).to(tl.float32)
    sums = tl.zeros([block_pixels, block_channels], tl.float32)
    squares = tl.zeros([block_pixels, block_channels], tl.float32)
    for step in range(steps):
        pixel = first + step * block_pixels
        value = load(x, pixel, pixel < pixels, channel, channels, large)
        distance = tl.where((pixel < pixels)[:, None], value - shift[None, :], 0.0)
        sums += distance
        squares += distance * distance
    count = tl.minimum(pixels - before, steps * block_pixels).to(tl.float32)
    total = tl.sum(sums, 0)
    spread = tl.sum(squares, 0) - total * total / count
    to = groups + tl.program_id(0) * 2 * channels
    keep(to, shift + total / count, channel, channels)
    keep(to + channels, positive(spread), channel, channels)


@triton.jit
def apply(
    x,
    other,
    y,
    groups,
    found,
    weight,
    bias,
    mean,
    variance,
    momentum,
    epsilon,
    unbias,
    pixels,
    steps,
    relu: tl.constexpr,
    added: tl.constexpr,
    power: tl.constexpr,
    units,
    unit: tl.constexpr,
    large: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """The statistics of all groups, and one group's result."""
    channels = units * unit
    first, channel = first_block(pixels, steps, block_pixels, block_channels)
    size = steps * block_pixels
    before = tl.arange(0, power) * size
    count = tl.maximum(tl.minimum(pixels - before, size), 0).to(tl.float32)[:, None]
    shift = numbers(groups, channel, channels)
    distance = of_groups(groups, 0, channel, channels, power) - shift[None, :]
    middle = shift + tl.sum(tl.where(count > 0, distance * count, 0.0), 0) / pixels
    distance -= (middle - shift)[None, :]
    squares = of_groups(groups, 1, channel, channels, power) + distance * distance * count
    spread = tl.sum(tl.where(count > 0, squares, 0.0), 0) / pixels
    inverse = 1 / tl.sqrt(spread + epsilon)
    if tl.program_id(0) == 0:
        keep(found, middle, channel, channels)
        keep(found + channels, inverse, channel, channels)
        past = numbers(mean, channel, channels)
        keep(mean, past + momentum * (middle - past), channel, channels)
        past = numbers(variance, channel, channels)
        keep(variance, past + momentum * (spread * unbias - past), channel, channels)
    a = (numbers(weight, channel, channels) * inverse)[None, :]
    b = numbers(bias, channel, channels)[None, :]
    for step in range(steps):
        pixel = first + step * block_pixels
        inside = pixel < pixels
        value = (load(x, pixel, inside, channel, channels, large) - middle[None, :]) * a + b
        if relu:
            value = positive(value)
        if added:
            value += load(other, pixel, inside, channel, channels, large)
        store(y, value, pixel, inside, channel, channels, large)


@triton.jit
def correlate(
    x,
    dy,
    groups,
    found,
    weight,
    bias,
    pixels,
    steps,
    relu: tl.constexpr,
    units,
    unit: tl.constexpr,
    large: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """The groups' sums of the gradients, and of their products with the distance to the mean."""
    channels = units * unit
    first, channel = first_block(pixels, steps, block_pixels, block_channels)
    middle = numbers(found, channel, channels)[None, :]
    inverse = numbers(found + channels, channel, channels)[None, :]
    a = numbers(weight, channel, channels)[None, :] * inverse
    b = numbers(bias, channel, channels)[None, :]
    sums = tl.zeros([block_pixels, block_channels], tl.float32)
    products = tl.zeros([block_pixels, block_channels], tl.float32)
    for step in range(steps):
        pixel = first + step * block_pixels
        inside = pixel < pixels
        distance = load(x, pixel, inside, channel, channels, large) - middle
        arrived = load(dy, pixel, inside, channel, channels, large)
        if relu:
            arrived = tl.where(distance * a + b <= 0, 0.0, arrived)
        sums += arrived
        products += arrived * distance
    to = groups + tl.program_id(0) * 2 * channels
    keep(to, tl.sum(sums, 0), channel, channels)
    keep(to + channels, tl.sum(products, 0), channel, channels)


@triton.jit
def differentiate(
    x,
    dy,
    dx,
    groups,
    found,
    weight,
    bias,
    dweight,
    dbias,
    pixels,
    steps,
    relu: tl.constexpr,
    power: tl.constexpr,
    units,
    unit: tl.constexpr,
    large: tl.constexpr,
    block_pixels: tl.constexpr,
    block_channels: tl.constexpr,
):
    """The gradients of weight and bias from all groups, and one group's gradient of x."""
    channels = units * unit
    first, channel = first_block(pixels, steps, block_pixels, block_channels)
    total = tl.sum(of_groups(groups, 0, channel, channels, power), 0)
    product = tl.sum(of_groups(groups, 1, channel, channels, power), 0)
    middle = numbers(found, channel, channels)[None, :]
    inverse = numbers(found + channels, channel, channels)
    if tl.program_id(0) == 0:
        keep(dweight, product * inverse, channel, channels)
        keep(dbias, total, channel, channels)
    slope = (inverse * inverse * product / pixels)[None, :]
    offset = (total / pixels)[None, :]
    a = (numbers(weight, channel, channels) * inverse)[None, :]
    b = numbers(bias, channel, channels)[None, :]
    for step in range(steps):
        pixel = first + step * block_pixels
        inside = pixel < pixels
        distance = load(x, pixel, inside, channel, channels, large) - middle
        arrived = load(dy, pixel, inside, channel, channels, large)
        if relu:
            arrived = tl.where(distance * a + b <= 0, 0.0, arrived)
        change = a * (arrived - offset - distance * slope)
        store(dx, change, pixel, inside, channel, channels, large)
