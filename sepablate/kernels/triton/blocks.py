"""Device functions for blocks of an activation, seen as a matrix (pixels, channels).

A block is a tensor (block_pixels, block_channels). `pixel_offsets` (block_pixels,) are its rows in
the matrix, `channel_offsets` (block_channels,) its columns, and `mask` (block_pixels,) is true for
the pixels to load or store. Channels out of bounds are always masked.
"""
# mypy: allow-untyped-defs

import triton
import triton.language as tl


@triton.jit
def program_offsets(steps, block_pixels: tl.constexpr, block_channels: tl.constexpr):
    """Return the pixel offsets of a program's first block, and its channel offsets."""
    pixel_offsets = tl.program_id(0) * steps * block_pixels + tl.arange(0, block_pixels)
    channel_offsets = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    return pixel_offsets, channel_offsets


@triton.jit
def unravel_pixels(pixel_offsets, height, width):
    """Return the image, row and column of each pixel."""
    image = pixel_offsets // (height * width)
    return image, pixel_offsets // width % height, pixel_offsets % width


@triton.jit
def block_offsets(pixel_offsets, channel_offsets, channels, int64_offsets: tl.constexpr):
    """Return the memory offsets of a block."""
    if int64_offsets:
        pixel_offsets = pixel_offsets.to(tl.int64)
    return pixel_offsets[:, None] * channels + channel_offsets[None, :]


@triton.jit
def block_mask(mask, channel_offsets, channels):
    """Return the mask of a block."""
    return mask[:, None] & (channel_offsets < channels)[None, :]


@triton.jit
def load_block(ptr, pixel_offsets, mask, channel_offsets, channels, int64_offsets: tl.constexpr):
    """Return a block in fp32, zero where masked."""
    offsets = block_offsets(pixel_offsets, channel_offsets, channels, int64_offsets)
    in_block = block_mask(mask, channel_offsets, channels)
    return tl.load(ptr + offsets, mask=in_block, other=0.0).to(tl.float32)


@triton.jit
def store_block(
    ptr, value, pixel_offsets, mask, channel_offsets, channels, int64_offsets: tl.constexpr
):
    """Store a block, rounded to the element type of `ptr`."""
    offsets = block_offsets(pixel_offsets, channel_offsets, channels, int64_offsets)
    in_block = block_mask(mask, channel_offsets, channels)
    tl.store(ptr + offsets, value.to(ptr.dtype.element_ty), mask=in_block)


@triton.jit
def in_bounds(mask, row, column, height, width):
    """Return `mask` without the pixels that lie outside the images."""
    return mask & (row >= 0) & (row < height) & (column >= 0) & (column < width)


@triton.jit
def load_padded(
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
    """Return a block of pixels given by image, row and column, zero outside the images."""
    mask = in_bounds(mask, row, column, height, width)
    pixel_offsets = (image * height + row) * width + column
    return load_block(ptr, pixel_offsets, mask, channel_offsets, channels, int64_offsets)


@triton.jit
def relu(value):
    """Return max(value, 0); NaN stays NaN."""
    return tl.where(value <= 0, 0.0, value)
