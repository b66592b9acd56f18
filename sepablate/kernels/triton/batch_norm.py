"""Batch norm with the statistics of the batch, then a ReLU or an addition if wanted.

Two kernels each way: programs sum up groups of pixels, then each program of the second kernel adds
up what the groups found for its channels, and computes a group. Of a group are kept the mean and
the squares around it, from numbers less their first: large means cost no accuracy.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from sepablate.kernels.triton import batch_norm_kernels
from sepablate.kernels.triton.memory import block, large, last, like, unit

PROGRAMS = 132 * 2  # two on each of an H100's multiprocessors, where all run at once
MOST_GROUPS = 128  # each program adds up as many


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    epsilon: float,
    relu: bool,
    added: Tensor | None,
    batches: Tensor | None = None,
) -> Tensor:
    """x, added (N, C, H, W), all others (C,) in fp32 -> (N, C, H, W).

    `batches` is not counted up, where the CPU's kernel does: recorded steps count for all layers.

    Changes the running `mean` and `variance`, of which the latter is unbiased, in place; `momentum`
    is the weight of this batch. The ReLU comes before the addition.
    """
    found: Tensor = _Norm.apply(x, weight, bias, mean, variance, momentum, epsilon, relu, added)
    return found


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        momentum: float,
        epsilon: float,
        relu: bool,
        added: Tensor | None,
    ) -> Tensor:
        x, y = last(x), like(x, x.shape)
        pixels = x.numel() // x.shape[1]
        other = x if added is None else last(added)
        grid, blocks = _grid(x)
        groups = torch.empty((grid[0], 2, x.shape[1]), device=x.device)
        found = torch.empty((2, x.shape[1]), device=x.device)  # mean, 1 / standard deviation
        batch_norm_kernels.measure[grid](x, groups, **blocks)
        batch_norm_kernels.apply[grid](
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
            pixels / max(pixels - 1, 1),
            relu=relu,
            added=added is not None,
            power=triton.next_power_of_2(grid[0]),
            **blocks,
        )
        ctx.save_for_backward(x, weight, bias, found)
        ctx.relu, ctx.added = relu, added is not None
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, found = ctx.saved_tensors
        dy, dx = last(gradients[0]), like(x, x.shape)
        dweight, dbias = torch.empty_like(weight), torch.empty_like(bias)
        grid, blocks = _grid(x)
        groups = torch.empty((grid[0], 2, x.shape[1]), device=x.device)
        batch_norm_kernels.correlate[grid](
            x, dy, groups, found, weight, bias, relu=ctx.relu, **blocks
        )
        batch_norm_kernels.differentiate[grid](
            x,
            dy,
            dx,
            groups,
            found,
            weight,
            bias,
            dweight,
            dbias,
            relu=ctx.relu,
            power=triton.next_power_of_2(grid[0]),
            **blocks,
        )
        return dx, dweight, dbias, None, None, None, None, None, dy if ctx.added else None


def _grid(x: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """Programs: groups of pixels, blocks of channels."""
    channels = x.shape[1]
    pixels = x.numel() // channels
    block_channels = block(channels, 32 if channels <= 64 else 64)
    parts = triton.cdiv(channels, block_channels)
    wanted = min(MOST_GROUPS, triton.cdiv(PROGRAMS, parts))
    block_pixels = 8192 // block_channels
    while block_pixels * block_channels > 2048 and triton.cdiv(pixels, block_pixels) < wanted:
        block_pixels //= 2
    steps = triton.cdiv(pixels, wanted * block_pixels)
    return (triton.cdiv(pixels, steps * block_pixels), parts), {
        "pixels": pixels,
        "steps": steps,
        "units": channels // unit(channels),
        "unit": unit(channels),
        "large": large(x),
        "block_pixels": block_pixels,
        "block_channels": block_channels,
        "num_warps": 8,
    }
