"""Memory layout of activations: bf16, channels_last."""

from collections.abc import Sequence

import torch
from torch import Tensor


def channels_last(tensor: Tensor) -> Tensor:
    """Return `tensor` (N, C, H, W) in bf16 and channels_last memory, copied only if needed."""
    return tensor.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def empty_channels_last(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return an uninitialized tensor of `shape` (N, C, H, W) in bf16 and channels_last memory."""
    return torch.empty(
        shape, dtype=torch.bfloat16, device=device, memory_format=torch.channels_last
    )


def as_matrix(tensor: Tensor) -> Tensor:
    """Return a view (N * H * W, C) of a channels_last tensor (N, C, H, W)."""
    return tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1])


def num_pixels(tensor: Tensor) -> int:
    """Return the number of pixels N * H * W of a tensor (N, C, H, W)."""
    return tensor.numel() // tensor.shape[1]
