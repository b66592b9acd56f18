"""What the kernels share: how activations lie in memory, and blocks of them."""
# mypy: allow-untyped-defs

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor


def last(tensor: Tensor) -> Tensor:
    """`tensor` (N, C, H, W) in bf16 and channels_last memory: itself, if it is."""
    return tensor.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def like(model: Tensor, sizes: Sequence[int]) -> Tensor:
    """A new tensor of these sizes (N, C, H, W), in bf16 and channels_last memory."""
    return torch.empty(
        sizes, dtype=torch.bfloat16, device=model.device, memory_format=torch.channels_last
    )


def matrix(tensor: Tensor) -> Tensor:
    """A view (pixels, channels) of what `last` gave."""
    return tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1])


def block(channels: int, most: int = 64) -> int:
    """Channels of a block: 64 of bf16 are a line of the cache."""
    power: int = triton.next_power_of_2(channels)
    return min(most, max(8, power))


def unit(channels: int) -> int:
    """What kernels know of a number of channels when they are compiled: a power of two in it, which
    tells how far apart rows begin, and so how many numbers can be loaded at once."""
    return math.gcd(channels, 16)


def large(*tensors: Tensor) -> bool:
    """Whether offsets need 64 bits; a margin for places outside, which are masked."""
    return max(tensor.numel() for tensor in tensors) > 2**31 - 2**24


@triton.jit
def offsets(pixel, channel, channels, large: tl.constexpr):
    if large:
        pixel = pixel.to(tl.int64)
    return pixel[:, None] * channels + channel[None, :]


@triton.jit
def load(source, pixel, inside, channel, channels, large: tl.constexpr):
    """A block in fp32; 0 where not `inside`."""
    place = offsets(pixel, channel, channels, large)
    mask = inside[:, None] & (channel < channels)[None, :]
    return tl.load(source + place, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def store(target, value, pixel, inside, channel, channels, large: tl.constexpr):
    """A block, rounded to what the target holds; nothing where not `inside`."""
    place = offsets(pixel, channel, channels, large)
    mask = inside[:, None] & (channel < channels)[None, :]
    tl.store(target + place, value.to(target.dtype.element_ty), mask=mask)


@triton.jit
def load_at(
    source,
    image,
    row,
    column,
    known,
    channel,
    high,
    wide,
    channels,
    large: tl.constexpr,
):
    """A block in fp32; 0 outside the images."""
    inside = known & (row >= 0) & (row < high) & (column >= 0) & (column < wide)
    return load(source, (image * high + row) * wide + column, inside, channel, channels, large)


@triton.jit
def positive(value):
    return tl.where(value <= 0, 0.0, value)  # a NaN stays


@triton.jit
def load_tap(weight, channel, k: tl.constexpr, channels):
    """Number k of each channel's nine."""
    return tl.load(weight + channel * 9 + k, mask=channel < channels, other=0.0)[None, :]


@triton.jit
def store_tap(parts, product, channel, part, k: tl.constexpr, channels):
    """The sum of the products over the pixels, as number k of each channel's nine."""
    place = (part * channels + channel) * 9 + k
    tl.store(parts + place, tl.sum(product, 0), mask=channel < channels)
