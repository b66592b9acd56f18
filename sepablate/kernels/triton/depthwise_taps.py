"""Device functions for the taps of depthwise kernels: the nine weights of each channel, by rows."""
# mypy: allow-untyped-defs

import triton
import triton.language as tl


@triton.jit
def load_tap(weight_ptr, k: tl.constexpr, channel_offsets, channels):
    """Return tap `k` of each channel, (1, block_channels)."""
    mask = channel_offsets < channels
    return tl.load(weight_ptr + channel_offsets * 9 + k, mask=mask, other=0.0)[None, :]


@triton.jit
def load_taps(weight_ptr, channel_offsets, channels):
    """Return the nine taps of each channel, (1, block_channels) each."""
    return (
        load_tap(weight_ptr, 0, channel_offsets, channels),
        load_tap(weight_ptr, 1, channel_offsets, channels),
        load_tap(weight_ptr, 2, channel_offsets, channels),
        load_tap(weight_ptr, 3, channel_offsets, channels),
        load_tap(weight_ptr, 4, channel_offsets, channels),
        load_tap(weight_ptr, 5, channel_offsets, channels),
        load_tap(weight_ptr, 6, channel_offsets, channels),
        load_tap(weight_ptr, 7, channel_offsets, channels),
        load_tap(weight_ptr, 8, channel_offsets, channels),
    )


@triton.jit
def store_tap_grad(partial_ptr, group, products, k: tl.constexpr, channel_offsets, channels):
    """Store the sum of a block's products over its pixels, as one group's gradient of tap `k`."""
    offsets = (group * channels + channel_offsets) * 9 + k
    tl.store(partial_ptr + offsets, tl.sum(products, 0), mask=channel_offsets < channels)


@triton.jit
def store_tap_grads(
    partial_ptr, group, p0, p1, p2, p3, p4, p5, p6, p7, p8, channel_offsets, channels
):
    """Store one group's gradients of the nine taps, from blocks of products."""
    store_tap_grad(partial_ptr, group, p0, 0, channel_offsets, channels)
    store_tap_grad(partial_ptr, group, p1, 1, channel_offsets, channels)
    store_tap_grad(partial_ptr, group, p2, 2, channel_offsets, channels)
    store_tap_grad(partial_ptr, group, p3, 3, channel_offsets, channels)
    store_tap_grad(partial_ptr, group, p4, 4, channel_offsets, channels)
    store_tap_grad(partial_ptr, group, p5, 5, channel_offsets, channels)
    store_tap_grad(partial_ptr, group, p6, 6, channel_offsets, channels)
    store_tap_grad(partial_ptr, group, p7, 7, channel_offsets, channels)
    store_tap_grad(partial_ptr, group, p8, 8, channel_offsets, channels)
