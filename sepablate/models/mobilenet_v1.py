"""MobileNet v1, with its variants as options. Howard et al. 2017, arXiv:1704.04861, table 1."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from sepablate.models.layers import (
    Classifier,
    Depthwise,
    Norm,
    batch_norm,
    bordered,
    check_choice,
    check_flags,
    check_options,
    scaled,
)

# (outputs, stride) of each separable convolution. Table 1 prints stride 2 for the last depthwise
# step too, but with equal input and output sizes; the published code has stride 1.
LAYERS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
REPEATED = range(7, 12)  # the five equal layers, counted from 1
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6}


@dataclass(frozen=True)
class Maker:
    """Makes the layers of one network."""

    separable: bool
    norm: Norm
    activation: type[nn.Module]
    borders: str

    def step(self, conv: nn.Conv2d) -> nn.Sequential:
        """Return the convolution, BN, activation."""
        norm = self.norm(conv.out_channels)
        return nn.Sequential(OrderedDict(conv=conv, norm=norm, relu=self.activation()))

    def full(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        """Return a standard 3x3 convolution, BN, activation."""
        kind = nn.Conv2d if stride == 1 else bordered(nn.Conv2d, self.borders)
        return self.step(kind(inputs, outputs, 3, stride, padding=1, bias=False))

    def layer(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        """Return a depthwise and a pointwise step (figure 3), or a standard convolution instead."""
        if not self.separable:
            return nn.Sequential(OrderedDict(full=self.full(inputs, outputs, stride)))
        kind = Depthwise if stride == 1 else bordered(Depthwise, self.borders)
        return nn.Sequential(
            OrderedDict(
                depthwise=self.step(kind(inputs, stride)),
                pointwise=self.step(nn.Conv2d(inputs, outputs, 1, bias=False)),
            )
        )


class MobileNetV1(nn.Module):
    """MobileNet v1: (N, in_channels, H, W) -> logits (N, classes).

    It has 4,231,976 parameters at the paper's size. Unlike Xception's, its separable convolutions
    have BN and ReLU after both of their steps.

    Args:
        width: factor on every channel count, the paper's alpha.
        stem_stride: 2 as in the paper, 1 for small images.
        borders: of layers with stride 2: "torch" pads both ends by 1, as timm's network;
            "tensorflow" pads as the published code, even sizes by 0 and 1.
        separable: False makes every separable convolution a standard 3x3 one (table 4).
        shallow: True removes the five equal layers of 14 x 14 x 512 (table 5).
        activation: "relu" as in the paper; "relu6" as in its authors' published code and in timm.
        dropout: the published code's; the paper gives none.
        norm_momentum: the weight of the new batch, as in PyTorch.

    Raises UserError for a bad value of an option.
    """

    def __init__(
        self,
        classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        stem_stride: int = 2,
        borders: str = "torch",
        separable: bool = True,
        shallow: bool = False,
        activation: str = "relu",
        dropout: float = 0.001,
        norm_epsilon: float = 1e-3,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        check_options(classes, in_channels, width, stem_stride, "same", borders)
        check_flags(separable=separable, shallow=shallow)
        check_choice("activation", activation, ACTIVATIONS)
        norm = batch_norm(norm_epsilon, norm_momentum)
        make = Maker(separable, norm, ACTIVATIONS[activation], borders)
        inputs = scaled(32, width)
        self.stem = make.full(in_channels, inputs, stem_stride)
        # Layers have names, not indices: those that stay keep them, and so their initial weights.
        body: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (channels, stride) in enumerate(LAYERS, start=1):
            if shallow and number in REPEATED:
                continue
            outputs = scaled(channels, width)
            body[f"layer{number}"] = make.layer(inputs, outputs, stride)
            inputs = outputs
        self.body = nn.Sequential(body)
        self.classifier = Classifier(inputs, classes, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (N, 32, 112, 112) of 224 x 224
        x = self.body(x)  # (N, 1024, 7, 7)
        logits: Tensor = self.classifier(x)  # (N, classes)
        return logits
