"""A copy of a network for evaluation: the same function in fewer passes over the activations.

Batch norm in eval mode is a linear map of each channel, which the convolution before it can
compute: weight * scale, and a bias. Where that convolution's result goes elsewhere too, or a ReLU
lies between, the batch norm stays. A run with the C++ kernels is evaluated with them as well.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sepablate.kernels.fuse import remove_fused_kernels, supported
from sepablate.models.inception_v3 import ConvReluNorm
from sepablate.models.layers import ConvNorm, Depthwise, SeparableConv
from sepablate.models.xception import Block, Shortcut
from sepablate.runs.run import Run

GEMM_CHANNELS = 32  # with fewer, oneDNN's convolution beats the kernel's matrix product

Step = tuple[nn.Module, str]  # a layer, as its parent's attribute


@torch.no_grad()
def inference_network(model: nn.Module, run: Run) -> nn.Module:
    """Return a copy of `model` that computes its eval mode faster, in the run's precision.

    `model` stays as it is, and equal weights give equal bits. The copy runs under autocast where
    the run does; weights that autocast would cast in each call are cast once. It shares the other
    weights with `model`, and is of use until they change.
    """
    network = remove_fused_kernels(_shallow_copy(model))
    chains = [list(_steps(module)) for module in network.modules() if _children(module)]
    for steps in chains:
        for conv, norm in pairwise(steps):
            _fold(getattr(*conv), *norm)
    if run.precision == "bf16":
        if run.kernels == "fused":
            _apply_kernels(network)
            for steps in chains:
                _fuse_relus(steps)
            for module in network.modules():
                if isinstance(module, InferenceBlock):
                    module.layers = [getattr(*step) for step in _steps(module.body)]
        _cast_weights(network)
    return network


def _shallow_copy(module: nn.Module) -> nn.Module:
    """Return new modules in eval mode with the same tensors; a deep copy takes 30 ms."""
    twin = copy.copy(module)
    children = module._modules.items()
    twin.__dict__ |= {
        "training": False,
        "_parameters": module._parameters.copy(),
        "_buffers": module._buffers.copy(),
        "_modules": {name: child and _shallow_copy(child) for name, child in children},
    }
    return twin


def _children(module: nn.Module) -> list[str]:
    """Return the names of a layer's children in the order of `forward`; none if it is no chain."""
    if isinstance(module, nn.Sequential):
        return list(module._modules)
    if isinstance(module, SeparableConv):
        convolutions = ["depthwise", "pointwise"]
        first, second = convolutions[::-1] if module.pointwise_first else convolutions
        return [first, "norm_between", "activation", second, "norm"]
    chains: dict[type[nn.Module], list[str]] = {
        ConvNorm: ["conv", "norm", "relu"],
        ConvReluNorm: ["conv", "relu", "norm"],
        Shortcut: ["conv", "norm"],
    }
    return chains.get(type(module), [])


def _steps(module: nn.Module) -> Iterator[Step]:
    """Yield the layers of a chain in the order of computation, those of inner chains included."""
    for name in _children(module):
        child = getattr(module, name)
        if child is None or isinstance(child, nn.Identity):
            continue
        if _children(child):
            yield from _steps(child)
        else:
            yield module, name


def _fold(conv: nn.Module, parent: nn.Module, name: str) -> None:
    """Make a convolution compute the batch norm after it, if it is followed by one."""
    norm = getattr(parent, name)
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        return
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )
    setattr(parent, name, nn.Identity())


def _fuse_relus(steps: list[Step]) -> None:
    """Make a convolution of the kernels compute the ReLU before or after it."""
    steps = [step for step in steps if not isinstance(getattr(*step), nn.Identity)]
    for before, relu, after in zip([None, *steps], steps, [*steps[1:], None], strict=False):
        if type(getattr(*relu)) is not nn.ReLU:
            continue
        conv, following = before and getattr(*before), after and getattr(*after)
        if isinstance(conv, InferenceConv | InferenceDepthwise):
            conv.relu_after = True
        elif isinstance(following, InferenceDepthwise):
            following.relu_first = True
        else:
            continue
        setattr(*relu, nn.Identity())


class InferenceConv(nn.Conv2d):
    """1x1 convolution, plus a shortcut if given, before a ReLU if `relu_after`."""

    relu_after = False

    def forward(self, x: Tensor, residual: Tensor | None = None, stride: int = 1) -> Tensor:
        y: Tensor = torch.ops.sepablate.convolution_inference(
            x, self.weight, self.bias, residual, stride, 0, 0, self.relu_after
        )
        return y


class InferenceDepthwise(Depthwise):
    """Depthwise convolution, after a ReLU if `relu_first`, before one if `relu_after`."""

    relu_first = relu_after = False

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.sepablate.depthwise_inference(
            x, self.weight, self.bias, self.stride[0], self.relu_first, self.relu_after
        )
        return y


class InferenceMaxPool(nn.MaxPool2d):
    """3x3 max-pool with stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.sepablate.max_pool(x, self.padding)
        return y


class InferenceBlock(Block):
    """Block whose shortcut is added where the kernel writes it, or the body, for the first time."""

    layers: list[nn.Module]  # of the body

    def forward(self, x: Tensor) -> Tensor:
        if not self.residual:
            return super().forward(x)
        y: Tensor
        if isinstance(self.shortcut, Shortcut):
            y = self.shortcut.conv(x, self.body(x), stride=2)
            return y
        y, layers = x, self.layers
        for layer in layers[:-1]:
            y = layer(y)
        last = layers[-1]
        y = last(y, x) if isinstance(last, InferenceConv) else last(y) + x
        return y


_KERNELS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: InferenceConv,
    Depthwise: InferenceDepthwise,
    nn.MaxPool2d: InferenceMaxPool,
    Block: InferenceBlock,
}


def _apply_kernels(network: nn.Module) -> None:
    """Swap classes of layers for those that use the kernels, where they are the faster."""
    for module in network.modules():
        kind = type(module)
        if kind is Block and isinstance(module.shortcut, Shortcut):
            module.shortcut.conv.__class__ = InferenceConv
        if kind in _KERNELS and (_is_gemm(module) if kind is nn.Conv2d else supported(module)):
            module.__class__ = _KERNELS[kind]


def _is_gemm(conv: nn.Module) -> bool:
    """Whether a convolution is a matrix product that the kernel computes faster than oneDNN."""
    return (
        isinstance(conv, nn.Conv2d)
        and (conv.kernel_size, conv.stride, conv.groups) == ((1, 1), (1, 1), 1)
        and conv.bias is not None
        and conv.in_channels >= GEMM_CHANNELS
        and conv.out_channels > 1
    )


def _cast_weights(network: nn.Module) -> None:
    """Round the weights of layers without a kernel to bf16, as autocast does in each call."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and type(module) not in _KERNELS.values():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = _fixed(weight.bfloat16())


def _fixed(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
