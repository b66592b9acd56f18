"""Fake implementations of the operators: shapes and memory formats, for torch.compile and export.

Activations and their gradients are bf16 in channels_last memory, whatever the input's format.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def register_fakes() -> None:
    """Register a fake for each operator of torch.ops.sepablate, which must have been loaded."""
    fakes: dict[str, Callable[..., object]] = {
        "convolution": _convolution,
        "convolution_input_grad": _convolution_input_grad,
        "convolution_weight_grad": _convolution_weight_grad,
        "convolution_inference": _convolution_inference,
        "depthwise": _depthwise,
        "depthwise_backward": _depthwise_backward,
        "depthwise_inference": _depthwise_inference,
        "max_pool": _max_pool,
        "max_pool_with_indices": _max_pool_with_indices,
        "max_pool_backward": _max_pool_backward,
        "batch_norm": _batch_norm,
        "bn_forward": _bn_forward,
        "bn_backward": _bn_backward,
        "conv_norm": _conv_norm,
        "conv_norm_forward": _conv_norm_forward,
        "conv_norm_backward": _conv_norm_backward,
    }
    for name, fake in fakes.items():
        torch.library.register_fake(f"sepablate::{name}", fake)


def _activation(like: Tensor, *size: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(size, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _convolution(
    x: Tensor, weight: Tensor, stride: int, padding_height: int, padding_width: int
) -> Tensor:
    out_height = (x.shape[2] + 2 * padding_height - weight.shape[2]) // stride + 1
    out_width = (x.shape[3] + 2 * padding_width - weight.shape[3]) // stride + 1
    return _activation(x, x.shape[0], weight.shape[0], out_height, out_width)


def _convolution_input_grad(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding_height: int, padding_width: int
) -> Tensor:
    return _activation(x, *x.shape)


def _convolution_weight_grad(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding_height: int, padding_width: int
) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.channels_last)


def _convolution_inference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    stride: int,
    padding_height: int,
    padding_width: int,
    relu: bool,
) -> Tensor:
    return _convolution(x, weight, stride, padding_height, padding_width)


def _depthwise(x: Tensor, weight: Tensor, stride: int, relu: bool) -> Tensor:
    images, channels, height, width = x.shape
    return _activation(x, images, channels, (height - 1) // stride + 1, (width - 1) // stride + 1)


def _depthwise_inference(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, relu: bool, relu_after: bool
) -> Tensor:
    return _depthwise(x, weight, stride, relu)


def _depthwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, relu: bool
) -> tuple[Tensor, Tensor]:
    dweight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return _activation(x, *x.shape), dweight


def _max_pool(x: Tensor, padding: int) -> Tensor:
    images, channels, height, width = x.shape
    out_height = (height + 2 * padding - 3) // 2 + 1
    out_width = (width + 2 * padding - 3) // 2 + 1
    return _activation(x, images, channels, out_height, out_width)


def _max_pool_with_indices(x: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    y = _max_pool(x, padding)
    return y, _activation(x, *y.shape, dtype=torch.uint8)


def _max_pool_backward(
    grad: Tensor, indices: Tensor, height: int, width: int, padding: int
) -> Tensor:
    return _activation(grad, grad.shape[0], grad.shape[1], height, width)


def _batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    relu: bool,
    residual: Tensor | None = None,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    return _activation(x, *x.shape)


def _bn_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    relu: bool,
    residual: Tensor | None = None,
    num_batches_tracked: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return _activation(x, *x.shape), torch.empty_like(weight), torch.empty_like(weight)


def _bn_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _activation(x, *x.shape), torch.empty_like(weight), torch.empty_like(weight)


def _conv_norm(
    x: Tensor,
    depthwise: Tensor | None,
    weight: Tensor,
    stride: int,
    padding_height: int,
    padding_width: int,
    relu_first: bool,
    relu_between: bool,
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    relu: bool,
    residual: Tensor | None = None,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    return _convolution(x, weight, stride, padding_height, padding_width)


def _conv_norm_forward(
    x: Tensor,
    depthwise: Tensor | None,
    weight: Tensor,
    stride: int,
    padding_height: int,
    padding_width: int,
    relu_first: bool,
    relu_between: bool,
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    relu: bool,
    residual: Tensor | None = None,
    num_batches_tracked: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    y = _convolution(x, weight, stride, padding_height, padding_width)
    between = torch.empty(0, dtype=y.dtype, device=y.device)
    if depthwise is not None:
        between = _activation(x, *x.shape)
    mean, rstd = (torch.empty_like(norm_weight) for _ in range(2))
    return y, between, torch.empty_like(y), mean, rstd


def _conv_norm_backward(
    grad: Tensor,
    x: Tensor,
    depthwise: Tensor | None,
    weight: Tensor,
    between: Tensor,
    convolved: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    stride: int,
    padding_height: int,
    padding_width: int,
    relu_first: bool,
    relu_between: bool,
    relu: bool,
    input_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dx, dtaps = torch.empty(0, dtype=torch.bfloat16), torch.empty_like(weight[:0, 0, 0, 0])
    if input_grad or depthwise is not None:
        dx = _activation(x, *x.shape)
    if depthwise is not None:
        dtaps = torch.empty_like(depthwise, memory_format=torch.contiguous_format)
    dweight = torch.empty_like(weight, memory_format=torch.channels_last)
    return dx, dtaps, dweight, torch.empty_like(norm_weight), torch.empty_like(norm_bias)
