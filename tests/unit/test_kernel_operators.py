"""The C++ kernels as PyTorch's operators: registered, with fakes, gradients and refusals."""

from pathlib import Path

import pytest
import torch
from helpers.kernel_results import NO_CPU_KERNELS, as_in_training, fresh, random
from torch import Tensor
from torch.library import opcheck

__all__ = ["as_in_training"]
pytestmark = [
    pytest.mark.skipif(NO_CPU_KERNELS is not None, reason=f"no C++ kernels: {NO_CPU_KERNELS}"),
    pytest.mark.usefixtures("as_in_training"),
]


def activation(*shape: int, bf16: bool, seed: int = 0) -> Tensor:
    """Return random activations as the layers hand them on (bf16, channels_last), or fp32."""
    x = random(*shape, seed=seed)
    return x.bfloat16().to(memory_format=torch.channels_last) if bf16 else x


IMAGES = pytest.mark.parametrize(
    ("shape", "bf16"), [((3, 16, 4, 4), True), ((2, 5, 7, 6), False)], ids=["bf16", "fp32"]
)


@IMAGES
@pytest.mark.parametrize("stride", [1, 2])
def test_opcheck_depthwise(shape: tuple[int, ...], bf16: bool, stride: int) -> None:
    operators = torch.ops.sepablate
    x, weight = activation(*shape, bf16=bf16), random(shape[1], 1, 3, 3)
    y = operators.depthwise(x, weight, stride, True)
    grad = activation(*y.shape, bf16=bf16)
    opcheck(operators.depthwise_backward.default, (grad, x, weight, stride, True))
    bias = torch.ones(shape[1])
    opcheck(operators.depthwise_inference.default, (x, weight, bias, stride, True, True))
    x.requires_grad_(), weight.requires_grad_()
    opcheck(operators.depthwise.default, (x, weight, stride, True))


@IMAGES
@pytest.mark.parametrize(
    ("kernel", "geometry"), [((1, 1), (1, 0, 0)), ((3, 3), (2, 1, 1)), ((1, 3), (1, 0, 1))]
)
def test_opcheck_convolution(
    shape: tuple[int, ...], bf16: bool, kernel: tuple[int, int], geometry: tuple[int, int, int]
) -> None:
    operators = torch.ops.sepablate
    x, weight = activation(*shape, bf16=bf16), random(8, shape[1], *kernel)
    y = operators.convolution(x, weight, *geometry)
    grad = activation(*y.shape, bf16=bf16)
    opcheck(operators.convolution_input_grad.default, (grad, x, weight, *geometry))
    opcheck(operators.convolution_weight_grad.default, (grad, x, weight, *geometry))
    bias = torch.ones(8)
    opcheck(operators.convolution_inference.default, (x, weight, bias, grad, *geometry, True))
    opcheck(operators.convolution.default, (x, weight.requires_grad_(), *geometry))
    opcheck(operators.convolution.default, (x.requires_grad_(), weight, *geometry))


@IMAGES
@pytest.mark.parametrize("padding", [0, 1])
def test_opcheck_max_pool(shape: tuple[int, ...], bf16: bool, padding: int) -> None:
    operators = torch.ops.sepablate
    x = activation(*shape, bf16=bf16)
    y, indices = operators.max_pool_with_indices(x, padding)
    opcheck(operators.max_pool_with_indices.default, (x, padding))
    grad = activation(*y.shape, bf16=bf16)
    opcheck(operators.max_pool_backward.default, (grad, indices, *shape[2:], padding))
    opcheck(operators.max_pool.default, (x.requires_grad_(), padding))


@IMAGES
@pytest.mark.parametrize(("relu", "residual"), [(True, False), (False, True), (True, True)])
def test_opcheck_batch_norm(shape: tuple[int, ...], bf16: bool, relu: bool, residual: bool) -> None:
    operators, channels = torch.ops.sepablate, shape[1]
    x, weight, bias = activation(*shape, bf16=bf16), random(channels), random(channels, seed=1)
    added = activation(*shape, bf16=bf16, seed=2) if residual else None
    count = torch.tensor(0) if residual else None
    statistics = (*fresh(channels), 0.1, 1e-3)
    opcheck(operators.bn_forward.default, (x, weight, bias, *statistics, relu, added, count))
    _, mean, rstd = operators.bn_forward(x, weight, bias, *statistics, relu, added, count)
    grad = activation(*shape, bf16=bf16, seed=3)
    opcheck(operators.bn_backward.default, (grad, x, weight, bias, mean, rstd, relu))
    for tensor in (x, weight, bias, *([] if added is None else [added])):
        tensor.requires_grad_()
    opcheck(operators.batch_norm.default, (x, weight, bias, *statistics, relu, added, count))


@IMAGES
@pytest.mark.parametrize(("depthwise", "residual"), [(False, True), (True, False)])
def test_opcheck_conv_norm(
    shape: tuple[int, ...], bf16: bool, depthwise: bool, residual: bool
) -> None:
    operators, channels = torch.ops.sepablate, shape[1]
    x, kernel, geometry = activation(*shape, bf16=bf16), (3, 3), (2, 1, 1)
    if depthwise:
        kernel, geometry = (1, 1), (1, 0, 0)
    weights = [random(channels, 1, 3, 3)] if depthwise else []
    weights += [random(8, channels, *kernel), random(8), random(8, seed=1)]
    taps = weights[0] if depthwise else None
    weight, scale, bias = weights[-3:]
    plain = (*geometry, depthwise, depthwise)
    y = operators.convolution(x, weight, *geometry)
    added = activation(*y.shape, bf16=bf16, seed=2) if residual else None
    count = torch.tensor(0) if residual else None
    norm = (scale, bias, *fresh(8), 0.1, 1e-3, not residual, added, count)
    opcheck(operators.conv_norm_forward.default, (x, taps, weight, *plain, *norm))
    _, between, convolved, *moments = operators.conv_norm_forward(x, taps, weight, *plain, *norm)
    grad = activation(*y.shape, bf16=bf16, seed=3)
    saved = (grad, x, taps, weight, between, convolved, scale, bias, *moments)
    backward = operators.conv_norm_backward.default
    opcheck(operators.conv_norm_backward.default, (*saved, *plain, not residual, True))
    assert backward(*saved, *plain, not residual, False)[0].numel() == x.numel() * depthwise
    for tensor in (x, *weights, *([] if added is None else [added])):
        tensor.requires_grad_()
    opcheck(operators.conv_norm.default, (x, taps, weight, *plain, *norm))


def test_opcheck_covers_every_operator() -> None:
    names = {
        schema.name.partition("::")[2]
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("sepablate::")
    }
    text = Path(__file__).read_text()
    assert names
    assert all(f"opcheck(operators.{name}.default" in text for name in names)


def test_a_changed_statistic_is_noticed_by_a_graph_that_saved_it() -> None:
    x, ones = random(2, 4, 3, 3), torch.ones(4)
    running_mean, running_var = fresh(4)
    scale = torch.ones(4, requires_grad=True)
    loss = (scale * running_mean).sum()
    torch.ops.sepablate.batch_norm(x, ones, ones, running_mean, running_var, 0.1, 1e-3, False)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_of_gradients_and_wrong_shapes_are_refused() -> None:
    operators = torch.ops.sepablate
    x, weight = random(2, 4, 3, 3).requires_grad_(), random(4, 1, 3, 3)
    y = operators.depthwise(x, weight, 1, False).float().square().sum()
    with pytest.raises(RuntimeError, match="depthwise: gradients of gradients"):
        torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"weight must be \(4, 1, 3, 3\), not \[5, 1, 3, 3\]"):
        operators.depthwise(x, random(5, 1, 3, 3), 1, False)
    with pytest.raises(RuntimeError, match="at least 2 channels"):
        operators.max_pool(random(2, 1, 4, 4), 1)
