"""Xception, with its ablations as options. Chollet 2017, arXiv:1610.02357, figure 5."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from sepablate.models.layers import (
    Classifier,
    ConvNorm,
    Norm,
    SeparableConv,
    batch_norm,
    bordered,
    check_choice,
    check_flags,
    check_options,
    head,
    scaled,
)


@dataclass(frozen=True)
class Switches:
    """The options of `Xception` that all its blocks have in common.

    Args:
        between: the option activation_between.
        after: whether activation_after is not "none".
        norm: a constructor of BN.
    """

    residual: bool
    between: str
    norm_between: bool
    after: bool
    pointwise_first: bool
    segments: int
    norm: Norm
    borders: str

    def separable(self, inputs: int, outputs: int) -> SeparableConv:
        """Return a separable convolution with these switches."""
        return SeparableConv(
            inputs,
            outputs,
            self.norm,
            self.between,
            self.norm_between,
            self.pointwise_first,
            self.segments,
        )


class Shortcut(nn.Module):
    """1x1 convolution with stride 2, and BN: (N, inputs, H, W) -> (N, outputs, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        # A slice and stride 1 are the same function as stride 2. With fewer than 16 input channels,
        # oneDNN's weight gradient of a strided 1x1 convolution overruns its workspace.
        y: Tensor = self.norm(self.conv(x[:, :, ::2, ::2]))
        return y


class Block(nn.Module):
    """[ReLU, separable convolution, BN] x n, max-pool if strided, plus the shortcut.

    Nothing follows the addition: the next block starts with its ReLU. That ReLU stays when `after`
    is off, because it does not directly follow a separable convolution.

    Args:
        channels: of the block's input, and of the output of each separable convolution.
        switches: the network's options.
        strided: whether the block halves height and width.
        head: whether the block starts with a ReLU.
    """

    def __init__(
        self, channels: Sequence[int], switches: Switches, strided: bool = False, head: bool = True
    ) -> None:
        super().__init__()
        # Layers have names, not indices: those that stay keep them when a switch removes others.
        body: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (inputs, outputs) in enumerate(pairwise(channels), start=1):
            relu = head if index == 1 else switches.after
            if relu:
                body[f"relu{index}"] = nn.ReLU()
            body[f"separable{index}"] = switches.separable(inputs, outputs)
        if strided:
            body["pool"] = bordered(nn.MaxPool2d, switches.borders)(3, stride=2, padding=1)
        self.body = nn.Sequential(body)
        self.residual = switches.residual
        self.shortcut = (
            Shortcut(channels[0], channels[-1], switches.norm)
            if switches.residual and strided
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.residual:
            y = y + (x if self.shortcut is None else self.shortcut(x))
        return y


class Xception(nn.Module):
    """Xception: (N, in_channels, H, W) -> logits (N, classes).

    It has 22,855,952 parameters at the paper's size.

    Args:
        width: factor on every channel count.
        stem_stride: 2 as in the paper, 1 for small images.
        padding: of the two stem convolutions, "valid" as in the author's code, or "same".
        borders: of padded layers with stride 2: "torch" pads both ends by 1, as timm's network;
            "tensorflow" pads as the author's code, even sizes by 0 and 1.
        residual: False deletes every shortcut, those with a 1x1 convolution included (section 4.6).
        activation_between: "none", "relu" or "elu" between depthwise and pointwise (section 4.7).
        norm_between: BN between depthwise and pointwise, before the activation if there is one.
        activation_after: "none" removes each ReLU that directly follows a separable convolution's
            BN: those inside the blocks and the last two. The ReLU at the head of a block follows an
            addition and stays; so do the stem's.
        pointwise_first: every separable convolution starts with its pointwise step (section 1.2).
        segments: 0, or the number of channel segments that its spatial step acts on (section 1.2).
        hidden: dense layers of 4096 before the last one: 0, or 2 as in section 4.5.1's second head.
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
        residual: bool = True,
        activation_between: str = "none",
        norm_between: bool = False,
        activation_after: str = "relu",
        pointwise_first: bool = False,
        segments: int = 0,
        hidden: int = 0,
        dropout: float = 0.5,
        norm_epsilon: float = 1e-3,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        check_options(classes, in_channels, width, stem_stride, padding, borders)
        check_flags(residual=residual, norm_between=norm_between, pointwise_first=pointwise_first)
        check_choice("activation_after", activation_after, ("none", "relu"))
        norm = batch_norm(norm_epsilon, norm_momentum)
        switches = Switches(
            residual,
            activation_between,
            norm_between,
            activation_after == "relu",
            pointwise_first,
            segments,
            norm,
            borders,
        )
        c32, c64, c128, c256, c728, c1024, c1536, c2048 = (
            scaled(channels, width) for channels in (32, 64, 128, 256, 728, 1024, 1536, 2048)
        )
        margin = 1 if padding == "same" else 0
        self.stem = nn.Sequential(
            ConvNorm(in_channels, c32, 3, norm, stem_stride, margin, borders),
            ConvNorm(c32, c64, 3, norm, padding=margin),
        )
        self.entry = nn.Sequential(
            Block([c64, c128, c128], switches, strided=True, head=False),
            Block([c128, c256, c256], switches, strided=True),
            Block([c256, c728, c728], switches, strided=True),
        )
        self.middle = nn.Sequential(*(Block([c728] * 4, switches) for _ in range(8)))
        self.exit = _exit_flow([c728, c728, c1024], [c1024, c1536, c2048], switches)
        self.classifier = Classifier(c2048, classes, dropout, head(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (N, 64, 147, 147) of 299 x 299
        x = self.entry(x)  # (N, 728, 19, 19)
        x = self.middle(x)  # (N, 728, 19, 19)
        x = self.exit(x)  # (N, 2048, 10, 10)
        logits: Tensor = self.classifier(x)  # (N, classes)
        return logits


def _exit_flow(block: Sequence[int], tail: Sequence[int], switches: Switches) -> nn.Sequential:
    """Return a strided block, then [separable convolution, BN, ReLU] x 2 without a shortcut."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(block=Block(block, switches, strided=True))
    for index, (inputs, outputs) in enumerate(pairwise(tail), start=1):
        layers[f"separable{index}"] = switches.separable(inputs, outputs)
        if switches.after:
            layers[f"relu{index}"] = nn.ReLU()
    return nn.Sequential(layers)
