"""How a network takes on the kernels: it stays as it is written, and computes faster.

`take_on` gives layers classes that compute the same function by the kernels while they train under
bf16 autocast, and as before at all other times: by those in C++ on a CPU, by Triton's on a GPU.
Weights and their names do not change. ReLUs, and the addition of a shortcut, are done in passing by
the layer beside them.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sepablate.models.layers import ConvNorm, Depthwise, SeparableConv
from sepablate.models.xception import Block

FEW = 16  # input channels below which patches and a matrix product beat oneDNN's convolution


def take_on(model: nn.Module) -> nn.Module:
    """Let the layers of `model`, in place, train by the kernels that `compiled.load` has loaded."""
    for module in model.modules():
        if type(module) in _FAST and _suits(module):
            module.__class__ = _FAST[type(module)]
    for module in model.modules():
        _fold_relus(module)
    return model


def _active(module: nn.Module, x: Tensor) -> bool:
    device = x.device.type
    return (
        module.training
        and torch.is_autocast_enabled(device)
        and torch.get_autocast_dtype(device) == torch.bfloat16
    )


def _operators(x: Tensor) -> Any:
    """The kernels for where `x` lies."""
    if x.device.type == "cpu":
        return torch.ops.sepablate
    from sepablate.kernels import gpu

    return gpu


class _FastDepthwise(Depthwise):
    relu_first = False

    def forward(self, x: Tensor) -> Tensor:
        if not _active(self, x):
            return super().forward(x)
        return _operators(x).depthwise(x, self.weight, self.stride[0], self.relu_first)


class _FastNorm(nn.BatchNorm2d):
    relu_after = False

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        if not _active(self, x):
            return super().forward(x) if added is None else super().forward(x) + added
        assert self.num_batches_tracked is not None
        return _operators(x).norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.momentum,
            self.eps,
            self.relu_after,
            added,
            self.num_batches_tracked,
        )


class _FastConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if not _active(self, x):
            return super().forward(x)
        if x.device.type != "cpu" and self.kernel_size != (1, 1):
            return super().forward(x)
        padding: Any = self.padding
        return _operators(x).convolution(x, self.weight, self.stride[0], *padding)


class _FastMaxPool(nn.MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        if not _active(self, x):
            return super().forward(x)
        return _operators(x).max_pool(x, self.padding)


class _FastAvgPool(nn.AvgPool2d):
    """A mean of nine is a depthwise convolution with ninths."""

    def forward(self, x: Tensor) -> Tensor:
        if not _active(self, x):
            return super().forward(x)
        ninths = torch.full((x.shape[1], 1, 3, 3), 1 / 9, device=x.device)
        return _operators(x).depthwise(x, ninths, 1, False)


class _FastBlock(Block):
    """The shortcut's batch norm adds what the body gives; its convolution strides by itself.

    Where the shortcut is the input itself, the last batch norm of the body adds it.
    """

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Any = self.shortcut
        body: Any = self.body
        if not self.residual or not _active(self, x):
            return super().forward(x)
        if shortcut is None:
            *before, last = body
            if not isinstance(last.norm, _FastNorm):
                return super().forward(x)
            y = x
            for layer in before:
                y = layer(y)
            return last.norm(last.convolved(y), x)
        strided = _operators(x).convolution(x, shortcut.conv.weight, 2, 0, 0)
        return shortcut.norm(strided, self.body(x))


class _DoneBefore(nn.ReLU):
    """A ReLU that the layer before it, or after it, does in passing."""

    def forward(self, x: Tensor) -> Tensor:
        return x if _active(self, x) else super().forward(x)


class SeededDropout(nn.Dropout):
    """Dropout whose draws hang on a number in the device's memory: (1,) int64."""

    seed: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return _operators(x).dropout(x, self.p, self.seed)


_FAST: dict[type[nn.Module], type[nn.Module]] = {
    Depthwise: _FastDepthwise,
    nn.BatchNorm2d: _FastNorm,
    nn.Conv2d: _FastConv,
    nn.MaxPool2d: _FastMaxPool,
    nn.AvgPool2d: _FastAvgPool,
    Block: _FastBlock,
}


def _suits(module: nn.Module) -> bool:
    """Whether the kernels know such a layer, and are worth it."""
    if isinstance(module, nn.MaxPool2d):
        return (module.kernel_size, module.stride) == (3, 2) and module.padding in (0, 1)
    if isinstance(module, nn.AvgPool2d):
        return (module.kernel_size, module.stride, module.padding) == (3, 1, 1)
    if isinstance(module, Depthwise):
        return module.in_channels > 1
    if isinstance(module, nn.Conv2d):
        small = module.in_channels < FEW or module.kernel_size == (1, 1)
        return small and module.groups == 1 and module.bias is None
    return not isinstance(module, nn.BatchNorm2d) or module.num_features > 1


def _fold_relus(module: nn.Module) -> None:
    if type(module) is ConvNorm:
        _fold_into_norm(module.norm, module.relu)
    if isinstance(module, SeparableConv) and type(module.activation) is nn.ReLU:
        _fold_into_norm(module.norm_between, module.activation)
    if isinstance(module, nn.Sequential):
        layers = [nn.Identity(), *module, nn.Identity()]
        for (before, relu), (_, after) in pairwise(pairwise(layers)):
            depthwise = getattr(after, "depthwise", None)
            if type(relu) is not nn.ReLU:
                continue
            if isinstance(depthwise, _FastDepthwise) and not after.pointwise_first:
                depthwise.relu_first, relu.__class__ = True, _DoneBefore
            else:
                norm = before.norm if isinstance(before, SeparableConv) else before
                _fold_into_norm(norm, relu)


def _fold_into_norm(norm: nn.Module | None, relu: nn.Module) -> None:
    if isinstance(norm, _FastNorm):
        norm.relu_after, relu.__class__ = True, _DoneBefore
