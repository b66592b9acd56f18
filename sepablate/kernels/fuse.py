"""Apply the fused kernels to a network, which stays as it is written and trains faster.

`apply_fused_kernels` swaps the classes of layers for subclasses that compute the same function with
the kernels in training under bf16 autocast, and as before at all other times: with the C++ kernels
on a CPU, with Triton's on a GPU. ReLUs and the addition of a shortcut are fused into a neighbouring
depthwise convolution or batch norm.

Layers with TensorFlow's borders stay PyTorch's.

Swapping a layer's class is right here, because names in the state dict, weights and hooks stay as
they are, and because it never changes the function computed: an ablation is never made this way.
Evaluation undoes it, as it takes PyTorch's own kernels.
"""

from itertools import pairwise
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from sepablate.models.layers import ConvNorm, Depthwise, SeparableConv
from sepablate.models.xception import Block, Shortcut

IM2COL_CHANNELS = 16  # with fewer, patches and a matrix product beat oneDNN's convolution


def apply_fused_kernels(model: nn.Module) -> nn.Module:
    """Make the layers of `model`, in place, train with the fused kernels; return `model`.

    On a CPU, `sepablate.kernels.cpu.build.load_library` must have loaded the kernels.
    """
    for module in model.modules():
        if type(module) in _FUSED and supported(module):
            module.__class__ = _FUSED[type(module)]
    for module in model.modules():
        _fuse_relus(module)
    return model


def remove_fused_kernels(model: nn.Module) -> nn.Module:
    """Undo `apply_fused_kernels`, in place; return `model`."""
    plain = {fused: kind for kind, fused in _FUSED.items()} | {_FusedReLU: nn.ReLU}
    for module in model.modules():
        if type(module) in plain:
            module.__class__ = plain[type(module)]
    return model


class _Operators(Protocol):
    """The operators of a device. x (N, C, H, W), weights in fp32; results in bf16."""

    def convolution(
        self, x: Tensor, weight: Tensor, stride: int, padding_height: int, padding_width: int, /
    ) -> Tensor: ...

    def depthwise(self, x: Tensor, weight: Tensor, stride: int, relu: bool, /) -> Tensor: ...

    def max_pool(self, x: Tensor, padding: int, /) -> Tensor: ...

    def batch_norm(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        relu: bool,
        residual: Tensor | None,
        num_batches_tracked: Tensor | None,
        /,
    ) -> Tensor: ...


def _operators(x: Tensor) -> _Operators:
    """Return the kernels for the device of `x`."""
    if x.device.type == "cpu":
        return cast(_Operators, torch.ops.sepablate)
    from sepablate.kernels import triton  # only here: Triton comes with torch's CUDA builds

    return cast(_Operators, triton)


def _active(module: nn.Module, x: Tensor) -> bool:
    device = x.device.type
    return (
        module.training
        and torch.is_autocast_enabled(device)
        and torch.get_autocast_dtype(device) == torch.bfloat16
    )


class FusedDepthwise(Depthwise):
    """Depthwise convolution, after a ReLU if `relu_first`."""

    relu_first = False

    def forward(self, x: Tensor) -> Tensor:
        if not _active(self, x):
            return super().forward(x)
        return _operators(x).depthwise(x, self.weight, self.stride[0], self.relu_first)


class FusedBatchNorm(nn.BatchNorm2d):
    """Batch norm, before a ReLU if `relu_after`, and before the addition of a shortcut if given."""

    relu_after = False

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if not _active(self, x):
            y = super().forward(x)
            return y if residual is None else y + residual
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        return _operators(x).batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.momentum,
            self.eps,
            self.relu_after,
            residual,
            self.num_batches_tracked,
        )


class FusedConv(nn.Conv2d):
    """Convolution without groups or bias; on a GPU only if it is 1x1."""

    def forward(self, x: Tensor) -> Tensor:
        if not _active(self, x) or (x.device.type != "cpu" and self.kernel_size != (1, 1)):
            return super().forward(x)
        padding_height, padding_width = cast(tuple[int, int], self.padding)
        return _operators(x).convolution(
            x, self.weight, self.stride[0], padding_height, padding_width
        )


class FusedMaxPool(nn.MaxPool2d):
    """3x3 max-pool with stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        if not _active(self, x):
            return super().forward(x)
        return _operators(x).max_pool(x, cast(int, self.padding))


class FusedAvgPool(nn.AvgPool2d):
    """3x3 average pool that counts padding: a depthwise convolution whose weights are all 1/9."""

    def forward(self, x: Tensor) -> Tensor:
        if not _active(self, x):
            return super().forward(x)
        ninths = torch.full((x.shape[1], 1, 3, 3), 1 / 9, device=x.device)
        return _operators(x).depthwise(x, ninths, 1, False)


class FusedBlock(Block):
    """Block whose last batch norm adds: the shortcut's, or the body's if the shortcut is the input.

    The shortcut's convolution takes every second pixel by its stride, not from a slice.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.residual or not _active(self, x):
            return super().forward(x)
        if isinstance(self.shortcut, Shortcut):
            strided = _operators(x).convolution(x, self.shortcut.conv.weight, 2, 0, 0)
            return self.shortcut.norm(strided, self.body(x))
        *layers, last = self.body
        if not isinstance(last, SeparableConv) or not isinstance(last.norm, FusedBatchNorm):
            return super().forward(x)
        y = x
        for layer in layers:
            y = layer(y)
        return last.norm(last.convolved(y), x)


class _FusedReLU(nn.ReLU):
    """A ReLU that the layer before it, or after it, computes."""

    def forward(self, x: Tensor) -> Tensor:
        return x if _active(self, x) else super().forward(x)


class SeededDropout(nn.Dropout):
    """Dropout on a GPU whose draws depend on a number in the device's memory: (1,) int64."""

    seed: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        from sepablate.kernels import triton  # as in `_operators`

        return triton.dropout(x, self.p, self.seed)


_FUSED: dict[type[nn.Module], type[nn.Module]] = {
    Depthwise: FusedDepthwise,
    nn.BatchNorm2d: FusedBatchNorm,
    nn.Conv2d: FusedConv,
    nn.MaxPool2d: FusedMaxPool,
    nn.AvgPool2d: FusedAvgPool,
    Block: FusedBlock,
}


def supported(module: nn.Module) -> bool:
    """Whether the kernels can compute the layer, and faster than PyTorch's."""
    if isinstance(module, nn.MaxPool2d):
        return (module.kernel_size, module.stride) == (3, 2) and module.padding in (0, 1)
    if isinstance(module, nn.AvgPool2d):
        shape = (module.kernel_size, module.stride, module.padding)
        return shape == (3, 1, 1) and module.count_include_pad
    if isinstance(module, Depthwise):
        return module.in_channels > 1
    if isinstance(module, nn.Conv2d):
        small = module.in_channels < IM2COL_CHANNELS or module.kernel_size == (1, 1)
        return small and module.groups == 1 and module.bias is None
    return not isinstance(module, nn.BatchNorm2d) or module.num_features > 1


def _fuse_relus(module: nn.Module) -> None:
    """Fuse the ReLUs among the children of `module` into the layers before or after them."""
    if type(module) is ConvNorm:
        _fuse_into_norm(module.norm, module.relu)
    if isinstance(module, SeparableConv) and type(module.activation) is nn.ReLU:
        _fuse_into_norm(module.norm_between, module.activation)
    if isinstance(module, nn.Sequential):
        layers = [nn.Identity(), *module, nn.Identity()]
        for (before, relu), (_, after) in pairwise(pairwise(layers)):
            depthwise = getattr(after, "depthwise", None)
            if type(relu) is not nn.ReLU:
                continue
            if isinstance(depthwise, FusedDepthwise) and not after.pointwise_first:
                depthwise.relu_first, relu.__class__ = True, _FusedReLU
            else:
                norm = before.norm if isinstance(before, SeparableConv) else before
                _fuse_into_norm(norm, relu)


def _fuse_into_norm(norm: nn.Module | None, relu: nn.Module) -> None:
    if isinstance(norm, FusedBatchNorm):
        norm.relu_after, relu.__class__ = True, _FusedReLU
