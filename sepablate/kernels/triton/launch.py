"""Launch configurations: the grid of a kernel, its block sizes, and the arguments all share."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import triton
from torch import Tensor

from sepablate.kernels.triton.memory import num_pixels

if TYPE_CHECKING:
    from triton.runtime.jit import KernelInterface

NUM_SMS = 132  # streaming multiprocessors of an H100


@dataclass(frozen=True)
class LaunchConfig:
    """Grid and block sizes of a kernel that treats an activation as a matrix (pixels, channels).

    Attributes:
        grid: number of programs along each axis; the last axis counts blocks of channels.
        steps: number of blocks that each program processes, one after another.
        channels: number of channels of the activation.
        block_pixels: pixels in a block.
        block_channels: channels in a block, a power of two.
        num_warps: warps that run one program.
    """

    grid: tuple[int, ...]
    steps: int
    channels: int
    block_pixels: int
    block_channels: int
    num_warps: int = 4

    @property
    def num_groups(self) -> int:
        """Number of programs that share a block of channels, each with pixels of its own."""
        return math.prod(self.grid[:-1])

    def launch(
        self, kernel: "KernelInterface", *args: Tensor | float, **constants: int | bool
    ) -> None:
        """Launch `kernel` with the arguments of this configuration.

        Kernels see the number of channels as `units * alignment`, where only `alignment` is known
        when they are compiled: it says how far apart rows begin, and so how wide loads can be.

        Args:
            kernel: a function decorated with `triton.jit`.
            args: its first arguments, in order. Offsets are int64 if any of the tensors needs it.
            constants: its own compile-time arguments.
        """
        alignment = channel_alignment(self.channels)
        kernel[self.grid](
            *args,
            **constants,
            units=self.channels // alignment,
            alignment=alignment,
            int64_offsets=needs_int64(*(arg for arg in args if isinstance(arg, Tensor))),
            block_pixels=self.block_pixels,
            block_channels=self.block_channels,
            num_warps=self.num_warps,
        )


def tile_pixels(
    tensor: Tensor,
    block_pixels: int,
    block_channels: int,
    max_groups: int | None = None,
    num_warps: int = 4,
) -> LaunchConfig:
    """Return a configuration that covers `tensor` (N, C, H, W) by blocks of pixels and channels.

    Args:
        tensor: the activation to cover.
        block_pixels: pixels in a block.
        block_channels: channels in a block.
        max_groups: limit to the number of programs per block of channels, each of which then takes
            as many steps as are needed; None for one step each.
        num_warps: warps that run one program.
    """
    channels, pixels = tensor.shape[1], num_pixels(tensor)
    steps = 1 if max_groups is None else triton.cdiv(pixels, block_pixels * max_groups)
    groups = triton.cdiv(pixels, steps * block_pixels)
    return LaunchConfig(
        grid=(groups, triton.cdiv(channels, block_channels)),
        steps=steps,
        channels=channels,
        block_pixels=block_pixels,
        block_channels=block_channels,
        num_warps=num_warps,
    )


def channel_block_size(channels: int, max_size: int = 64) -> int:
    """Return the number of channels in a block; 64 channels in bf16 fill a cache line."""
    power: int = triton.next_power_of_2(channels)
    return min(max_size, max(8, power))


def channel_alignment(channels: int) -> int:
    """Return the largest power of two, 16 at most, that divides `channels`."""
    return math.gcd(channels, 16)


def needs_int64(*tensors: Tensor) -> bool:
    """Return whether offsets into any of `tensors` may exceed 32 bits.

    Leaves a margin for offsets that are computed but masked, out of the tensor's bounds.
    """
    return max(tensor.numel() for tensor in tensors) > 2**31 - 2**24
