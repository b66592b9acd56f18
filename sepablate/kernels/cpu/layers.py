"""Layers that the C++ kernels compute together with their batch norm, in one operator.

`register` adds them to the layers that `sepablate.kernels.fuse` swaps in. The kernels of other
devices have no such operator: there the layers compute as before.
"""

from typing import cast

import torch
from torch import Tensor, nn

from sepablate.kernels import fuse
from sepablate.kernels.fuse import FusedBatchNorm, FusedBlock, FusedConv, FusedDepthwise
from sepablate.models.layers import ConvNorm, SeparableConv
from sepablate.models.xception import Block, Shortcut


def register() -> None:
    """Make `fuse.apply_fused_kernels` swap these layers in as well."""
    fuse._FUSED.update(
        {SeparableConv: FusedSeparableConv, ConvNorm: FusedConvNorm, Block: FusedResidualBlock}
    )


def conv_norm(
    x: Tensor,
    conv: nn.Conv2d,
    norm: nn.Module,
    depthwise: FusedDepthwise | None = None,
    relu_between: bool = False,
    relu: bool = False,
    residual: Tensor | None = None,
    stride: int | None = None,
) -> Tensor:
    """Return [depthwise, [ReLU]], convolution, BN, [ReLU], [addition] of x (N, C, H, W) in bf16.

    Args:
        stride: of the convolution; default: its own.
    """
    norm = cast(FusedBatchNorm, norm)
    padding_height, padding_width = cast(tuple[int, int], conv.padding)
    y: Tensor = torch.ops.sepablate.conv_norm(
        x,
        None if depthwise is None else depthwise.weight,
        conv.weight,
        stride or conv.stride[0],
        padding_height,
        padding_width,
        depthwise is not None and depthwise.relu_first,
        relu_between,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        norm.momentum,
        norm.eps,
        relu,
        residual,
        norm.num_batches_tracked,
    )
    return y


def _active(module: nn.Module, x: Tensor) -> bool:
    return x.device.type == "cpu" and fuse._active(module, x)


class FusedSeparableConv(SeparableConv):
    """Separable convolution and its BN, and what is fused into both; plus a shortcut if given."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y: Tensor
        if not self._is_one_operator() or not _active(self, x):
            y = self.convolved(x)
            y = self.norm(y) if residual is None else self.norm(y, residual)
            return y
        depthwise, norm = cast(FusedDepthwise, self.depthwise), cast(FusedBatchNorm, self.norm)
        between = self.activation is not None
        return conv_norm(x, self.pointwise, norm, depthwise, between, norm.relu_after, residual)

    def _is_one_operator(self) -> bool:
        return (
            not self.pointwise_first
            and self.norm_between is None
            and type(self.activation) in (type(None), nn.ReLU)
            and type(self.depthwise) is FusedDepthwise
            and isinstance(self.norm, FusedBatchNorm)
        )


class FusedConvNorm(ConvNorm):
    """Convolution, BN and ReLU; a convolution with TensorFlow's borders is PyTorch's."""

    def forward(self, x: Tensor) -> Tensor:
        plain = type(self.conv) in (nn.Conv2d, FusedConv) and isinstance(self.norm, FusedBatchNorm)
        if not plain or not _active(self, x):
            return super().forward(x)
        return conv_norm(x, self.conv, self.norm, relu=True)


class FusedResidualBlock(FusedBlock):
    """Block whose last BN adds, as in `FusedBlock`."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.residual or not _active(self, x):
            return super().forward(x)
        shortcut = self.shortcut
        if isinstance(shortcut, Shortcut) and isinstance(shortcut.norm, FusedBatchNorm):
            return conv_norm(x, shortcut.conv, shortcut.norm, residual=self.body(x), stride=2)
        *layers, last = self.body
        if shortcut is not None or not isinstance(last, FusedSeparableConv):
            return super().forward(x)
        y = x
        for layer in layers:
            y = layer(y)
        return last(y, x) if isinstance(last.norm, FusedBatchNorm) else super().forward(x)
