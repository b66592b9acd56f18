"""Dropout whose mask the kernels draw, forward and again backward, from a seed on the device."""
# mypy: allow-untyped-defs

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def dropout(x: Tensor, probability: float, seed: Tensor) -> Tensor:
    """x (N, features) -> the same, each number 0 with `probability`, or else scaled up.

    seed: one int64 on the device. Nothing may change it between forward and backward, and layers
    with the same seed draw the same mask.
    """
    found: Tensor = _Dropout.apply(x, probability, seed)
    return found


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float, seed: Tensor) -> Tensor:
        ctx.save_for_backward(seed)
        ctx.probability = probability
        return _drop(x, probability, seed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (seed,) = ctx.saved_tensors
        return _drop(gradients[0], ctx.probability, seed), None, None


def _drop(x: Tensor, probability: float, seed: Tensor) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    grid = (triton.cdiv(x.numel(), BLOCK),)
    _kernel[grid](x, y, seed, x.numel(), probability, 1 / (1 - probability), size=BLOCK)
    return y


@triton.jit
def _kernel(x, y, seed, count, probability, scale, size: tl.constexpr):
    place = tl.program_id(0) * size + tl.arange(0, size)
    value = tl.load(x + place, mask=place < count, other=0.0).to(tl.float32)
    kept = tl.rand(tl.load(seed), place) >= probability
    value = tl.where(kept, value * scale, 0.0)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=place < count)
