"""What batch norm keeps of groups of pixels: two sums for each channel, (groups, 2, C)."""
# mypy: allow-untyped-defs

import triton
import triton.language as tl


@triton.jit
def first_block(pixels, steps, block_pixels: tl.constexpr, block_channels):
    """The first of a program's pixels, the first of its channels' blocks."""
    first = tl.program_id(0) * steps * block_pixels + tl.arange(0, block_pixels)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    return first, channel


@triton.jit
def numbers(source, channel, channels):
    return tl.load(source + channel, mask=channel < channels, other=0.0)


@triton.jit
def keep(target, value, channel, channels):
    tl.store(target + channel, value, mask=channel < channels)


@triton.jit
def of_groups(groups, which: tl.constexpr, channel, channels, power: tl.constexpr):
    """One sum of each group, a block (power, channels)."""
    group = tl.arange(0, power)
    place = (group * 2 + which)[:, None] * channels + channel[None, :]
    mask = (group < tl.num_programs(0))[:, None] & (channel < channels)[None, :]
    return tl.load(groups + place, mask=mask, other=0.0)
