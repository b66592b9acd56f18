"""Inception V3 without its auxiliary tower. Szegedy et al. 2015, arXiv:1512.00567.

The layout is that of the published code, whose stem differs from the paper's table 1; "figure"
below means one of the paper's.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sepablate.models import layers

Step = tuple[int, layers.Kernel] | tuple[int, layers.Kernel, int]  # outputs, kernel[, stride]


class ConvReluNorm(layers.ConvNorm):
    """Convolution with bias, ReLU, BN, in the order that Keras had until March 2017."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.conv.bias = nn.Parameter(torch.zeros(self.conv.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.relu(self.conv(x)))
        return y


@dataclass(frozen=True)
class Maker:
    """Makes the layers of one network.

    In its methods, `outputs` are channel counts at width 1 and `inputs` actual channel counts.

    Args:
        width: factor on every channel count.
        norm: a constructor of BN.
        same: pad the strided and the `valid` layers too, which the canonical network does not.
        keras_2016, borders: as in `InceptionV3`.
    """

    width: float
    norm: layers.Norm
    same: bool
    keras_2016: bool
    borders: str

    def channels(self, *outputs: int) -> int:
        """Return the channels of the concatenation of these outputs."""
        return sum(layers.scaled(count, self.width) for count in outputs)

    def conv(
        self, inputs: int, outputs: int, kernel: layers.Kernel, stride: int = 1, valid: bool = False
    ) -> layers.ConvNorm:
        """Return a convolution with BN and ReLU; padded unless it is `valid` or strided."""
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padded = self.same or not (valid or stride == 2)
        padding = (height // 2, width // 2) if padded else (0, 0)
        layer = ConvReluNorm if self.keras_2016 else layers.ConvNorm
        channels = self.channels(outputs)
        return layer(inputs, channels, kernel, self.norm, stride, padding, self.borders)

    def tower(self, inputs: int, *steps: Step) -> nn.Sequential:
        """Return convolutions in sequence."""
        tower = nn.Sequential()
        for step in steps:
            tower.append(self.conv(inputs, *step))
            inputs = self.channels(step[0])
        return tower

    def pool(self, kind: type[nn.Module] = nn.MaxPool2d) -> nn.Module:
        """Return a 3x3 pool with stride 2."""
        if not self.same:
            return kind(3, stride=2)
        return layers.bordered(kind, self.borders)(3, stride=2, padding=1)

    def pooled(self, inputs: int, outputs: int) -> nn.Sequential:
        """Return a 3x3 average pool with stride 1, followed by a 1x1 convolution."""
        zeros = self.borders == "torch"  # whether the padding's zeros count in the mean
        pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=zeros)
        return nn.Sequential(pool, self.conv(inputs, outputs, 1))


class Fork(layers.Mixed):
    """1x3 and 3x1 in parallel (figure 7)."""

    def __init__(self, make: Maker) -> None:
        super().__init__()
        inputs = make.channels(384)
        self.a = make.conv(inputs, 384, (1, 3))
        self.b = make.conv(inputs, 384, (3, 1))


class InceptionA(layers.Mixed):
    """Block of figure 5, with a 5x5: (N, inputs, H, W) -> (N, 224 + pooled, H, W)."""

    def __init__(self, make: Maker, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = make.conv(inputs, 64, 1)
        self.branch5x5 = make.tower(inputs, (48, 1), (64, 5))
        self.branch3x3dbl = make.tower(inputs, (64, 1), (96, 3), (96, 3))
        self.branch_pool = make.pooled(inputs, pooled)
        self.outputs = make.channels(64, 64, 96, pooled)


class InceptionB(layers.Mixed):
    """Grid reduction of figure 10: (N, inputs, H, W) -> (N, inputs + 480, H/2, W/2)."""

    def __init__(self, make: Maker, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = make.conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl = make.tower(inputs, (64, 1), (96, 3), (96, 3, 2))
        self.branch_pool = make.pool()
        self.outputs = inputs + make.channels(384, 96)


class InceptionC(layers.Mixed):
    """Block of figure 6, 7x7 factorised into 1x7 and 7x1: (N, inputs, H, W) -> (N, 768, H, W)."""

    def __init__(self, make: Maker, inputs: int, inner: int, first: int | None = None) -> None:
        super().__init__()
        row, column = (inner, (1, 7)), (inner, (7, 1))
        self.branch1x1 = make.conv(inputs, 192, 1)
        self.branch7x7 = make.tower(inputs, (inner, 1), row, (192, (7, 1)))
        self.branch7x7dbl = make.tower(
            inputs, (first or inner, 1), column, row, column, (192, (1, 7))
        )
        self.branch_pool = make.pooled(inputs, 192)
        self.outputs = make.channels(192, 192, 192, 192)


class InceptionD(layers.Mixed):
    """Grid reduction of figure 10, with a 7x7: (N, inputs, H, W) -> (N, inputs + 512, H/2, W/2)."""

    def __init__(self, make: Maker, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = make.tower(inputs, (192, 1), (320, 3, 2))
        self.branch7x7x3 = make.tower(inputs, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2))
        self.branch_pool = make.pool(nn.AvgPool2d if make.keras_2016 else nn.MaxPool2d)
        self.outputs = inputs + make.channels(320, 192)


class InceptionE(layers.Mixed):
    """Block of figure 7, with forked towers: (N, inputs, H, W) -> (N, 2048, H, W)."""

    def __init__(self, make: Maker, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = make.conv(inputs, 320, 1)
        self.branch3x3 = make.tower(inputs, (384, 1)).append(Fork(make))
        self.branch3x3dbl = make.tower(inputs, (448, 1), (384, 3)).append(Fork(make))
        self.branch_pool = make.pooled(inputs, 192)
        self.outputs = make.channels(320, 384, 384, 384, 384, 192)


class InceptionV3(nn.Module):
    """Inception V3: (N, in_channels, H, W) -> logits (N, classes).

    It has 23,834,568 parameters at the paper's size.

    Args:
        width: factor on every channel count.
        stem_stride: 2 as in the paper, 1 for small images.
        padding: "valid" as in the canonical network; "same" pads its valid layers by half their
            kernel, so that small images have the sizes they have in Xception.
        borders: "torch" as in torchvision's and timm's networks, whose average pools with stride 1
            count the zeros of their padding; "tensorflow" as in TensorFlow, whose average pools
            leave them out, and which pads even sizes before stride 2 by 0 and 1.
        keras_2016: as in github.com/fchollet/deep-learning-models, cbf97b0, with the 23,626,728
            parameters of the Xception paper's table 3: convolutions with bias, BN after the ReLU,
            32 channels after the first three pools, 160 in one layer of mixed_6e, average pool in
            mixed_7a. That code's borders are TensorFlow's.
        hidden: dense layers of 4096 before the last one.
        norm_momentum: the weight of the new batch, as in PyTorch.

    Raises UserError for a bad value of an option.
    """

    def __init__(
        self,
        classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        stem_stride: int = 2,
        padding: str = "valid",
        borders: str = "torch",
        keras_2016: bool = False,
        hidden: int = 0,
        dropout: float = 0.5,
        norm_epsilon: float = 1e-3,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        layers.check_options(classes, in_channels, width, stem_stride, padding, borders)
        layers.check_flags(keras_2016=keras_2016)
        norm = layers.batch_norm(norm_epsilon, norm_momentum)
        make = Maker(width, norm, padding == "same", keras_2016, borders)
        pooled, first = (32, 160) if keras_2016 else (64, 192)
        self.stem = _stem(make, in_channels, stem_stride)
        self.mixed_5b = InceptionA(make, make.channels(192), 32)
        self.mixed_5c = InceptionA(make, self.mixed_5b.outputs, pooled)
        self.mixed_5d = InceptionA(make, self.mixed_5c.outputs, pooled)
        self.mixed_6a = InceptionB(make, self.mixed_5d.outputs)
        self.mixed_6b = InceptionC(make, self.mixed_6a.outputs, 128)
        self.mixed_6c = InceptionC(make, self.mixed_6b.outputs, 160)
        self.mixed_6d = InceptionC(make, self.mixed_6c.outputs, 160)
        self.mixed_6e = InceptionC(make, self.mixed_6d.outputs, 192, first)
        self.mixed_7a = InceptionD(make, self.mixed_6e.outputs)
        self.mixed_7b = InceptionE(make, self.mixed_7a.outputs)
        self.mixed_7c = InceptionE(make, self.mixed_7b.outputs)
        head = layers.head(hidden, width)
        self.classifier = layers.Classifier(self.mixed_7c.outputs, classes, dropout, head)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (N, 192, 35, 35) of 299 x 299
        x = self.mixed_5d(self.mixed_5c(self.mixed_5b(x)))  # (N, 288, 35, 35)
        x = self.mixed_6a(x)  # (N, 768, 17, 17)
        x = self.mixed_6e(self.mixed_6d(self.mixed_6c(self.mixed_6b(x))))  # (N, 768, 17, 17)
        x = self.mixed_7a(x)  # (N, 1280, 8, 8)
        x = self.mixed_7c(self.mixed_7b(x))  # (N, 2048, 8, 8)
        logits: Tensor = self.classifier(x)  # (N, classes)
        return logits


def _stem(make: Maker, in_channels: int, stride: int) -> nn.Sequential:
    """Return the plain convolutions and pools before the first mixed block."""
    steps = OrderedDict[str, nn.Module](
        conv_1a_3x3=make.conv(in_channels, 32, 3, stride, valid=True),
        conv_2a_3x3=make.conv(make.channels(32), 32, 3, valid=True),
        conv_2b_3x3=make.conv(make.channels(32), 64, 3),
        pool_3a=make.pool(),
        conv_3b_1x1=make.conv(make.channels(64), 80, 1),
        conv_4a_3x3=make.conv(make.channels(80), 192, 3, valid=True),
        pool_5a=make.pool(),
    )
    return nn.Sequential(steps)
