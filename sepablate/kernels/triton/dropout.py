"""Dropout whose mask is drawn again in the backward pass, from a seed in device memory."""
# mypy: allow-untyped-defs

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_SIZE = 1024


def dropout(x: Tensor, p: float, seed: Tensor) -> Tensor:
    """Return `x` with elements zeroed at random, and the others scaled by 1 / (1 - p).

    Layers with the same seed draw the same mask. The mask is not stored: the seed must not change
    between forward and backward.

    Args:
        x: a tensor of any shape and floating-point type.
        p: probability that an element is zeroed.
        seed: (1,) int64, on the device of `x`.

    Returns:
        A tensor of the shape and type of `x`.
    """
    y: Tensor = _Dropout.apply(x, p, seed)
    return y


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: Tensor) -> Tensor:
        ctx.save_for_backward(seed)
        ctx.p = p
        return _drop(x, p, seed)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (seed,) = ctx.saved_tensors
        return _drop(grad_outputs[0], ctx.p, seed), None, None


def _drop(x: Tensor, p: float, seed: Tensor) -> Tensor:
    """Return `x` under the mask of `seed`, scaled by 1 / (1 - p)."""
    x = x.contiguous()
    y = torch.empty_like(x)
    grid = (triton.cdiv(x.numel(), BLOCK_SIZE),)
    _dropout_kernel[grid](x, y, seed, x.numel(), p, 1 / (1 - p), block_size=BLOCK_SIZE)
    return y


@triton.jit
def _dropout_kernel(x_ptr, y_ptr, seed_ptr, n_elements, p, scale, block_size: tl.constexpr):
    """Apply dropout to one block of elements."""
    offsets = tl.program_id(0) * block_size + tl.arange(0, block_size)
    mask = offsets < n_elements
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    keep = tl.rand(tl.load(seed_ptr), offsets) >= p
    y = tl.where(keep, x * scale, 0.0)
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)
