"""Batch norm by the statistics of the batch, optionally followed by a ReLU and an addition.

Two kernels forward and two backward. In the first, each program reduces a group of pixels to
partial statistics; in the second, each program combines the partial statistics of all groups, and
computes the result of one group. A group is described by its mean and the sum of squared deviations
from it, computed from the differences to its first pixel, and groups are combined by the parallel
algorithm of Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for
computing sample variances": a mean that is large against the variance costs no accuracy.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from sepablate.kernels.triton.batch_norm_kernels import (
    bn_backward,
    bn_forward,
    bn_reduce_grads,
    bn_stats,
)
from sepablate.kernels.triton.launch import NUM_SMS, LaunchConfig, channel_block_size, tile_pixels
from sepablate.kernels.triton.memory import channels_last, empty_channels_last, num_pixels

TARGET_PROGRAMS = 2 * NUM_SMS  # all run at once
MAX_GROUPS = 128  # each program of the second kernel reads the statistics of as many


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    relu: bool,
    residual: Tensor | None,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    """Return ReLU(batch_norm(x)) + residual, and update the running statistics in place.

    Args:
        x: (N, C, H, W).
        weight: (C,) in fp32.
        bias: (C,) in fp32.
        running_mean: (C,) in fp32, updated in place.
        running_var: (C,) in fp32, updated in place with the unbiased variance.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance.
        relu: whether to apply the ReLU.
        residual: (N, C, H, W), added after the ReLU; None for no addition.
        num_batches_tracked: accepted for the signature of the C++ kernel, but not incremented: a
            recorded step increments the counters of all layers at once.

    Returns:
        (N, C, H, W) in bf16.
    """
    y: Tensor = _BatchNorm.apply(
        x, weight, bias, running_mean, running_var, momentum, eps, relu, residual
    )
    return y


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        relu: bool,
        residual: Tensor | None,
    ) -> Tensor:
        x, y = channels_last(x), empty_channels_last(x.shape, x.device)
        channels, pixels = x.shape[1], num_pixels(x)
        has_residual = residual is not None
        config = _launch_config(x)
        partial = torch.empty((config.num_groups, 2, channels), device=x.device)
        stats = torch.empty((2, channels), device=x.device)  # mean, 1 / standard deviation
        config.launch(bn_stats, x, partial, pixels, config.steps)
        config.launch(
            bn_forward,
            x,
            x if residual is None else channels_last(residual),
            y,
            partial,
            stats,
            weight,
            bias,
            running_mean,
            running_var,
            momentum,
            eps,
            pixels / max(pixels - 1, 1),
            pixels,
            config.steps,
            has_relu=relu,
            has_residual=has_residual,
            block_groups=triton.next_power_of_2(config.num_groups),
        )
        ctx.save_for_backward(x, weight, bias, stats)
        ctx.relu, ctx.has_residual = relu, has_residual
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, stats = ctx.saved_tensors
        dy, dx = channels_last(grad_outputs[0]), empty_channels_last(x.shape, x.device)
        dweight, dbias = torch.empty_like(weight), torch.empty_like(bias)
        config = _launch_config(x)
        sizes = (num_pixels(x), config.steps)
        partial = torch.empty((config.num_groups, 2, x.shape[1]), device=x.device)
        inputs = (partial, stats, weight, bias)
        config.launch(bn_reduce_grads, x, dy, *inputs, *sizes, has_relu=ctx.relu)
        config.launch(
            bn_backward,
            x,
            dy,
            dx,
            *inputs,
            dweight,
            dbias,
            *sizes,
            has_relu=ctx.relu,
            block_groups=triton.next_power_of_2(config.num_groups),
        )
        dresidual = dy if ctx.has_residual else None
        return dx, dweight, dbias, None, None, None, None, None, dresidual


def _launch_config(x: Tensor) -> LaunchConfig:
    """Return a configuration that covers `x` by MAX_GROUPS groups of pixels at most.

    Blocks hold 8192 elements, or down to 2048 where the pixels would not make enough groups.
    """
    channels, pixels = x.shape[1], num_pixels(x)
    block_channels = channel_block_size(channels, 32 if channels <= 64 else 64)
    channel_blocks = triton.cdiv(channels, block_channels)
    max_groups = min(MAX_GROUPS, triton.cdiv(TARGET_PROGRAMS, channel_blocks))
    block_pixels = 8192 // block_channels
    while block_pixels * block_channels > 2048 and triton.cdiv(pixels, block_pixels) < max_groups:
        block_pixels //= 2
    return tile_pixels(x, block_pixels, block_channels, max_groups, num_warps=8)
