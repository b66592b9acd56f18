"""Layers that the networks share, widths, and checks of their arguments."""

import math
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from sepablate.errors import UserError

Norm = Callable[[int], nn.Module]
Kernel = int | tuple[int, int]
Layer = TypeVar("Layer", bound=nn.Module)

# A switch that is off builds no module: "none" has no constructor.
ACTIVATIONS: dict[str, Callable[[], nn.Module] | None] = {
    "none": None,
    "relu": nn.ReLU,
    "elu": nn.ELU,
}
PADDINGS = ("valid", "same")
BORDERS = ("torch", "tensorflow")


def scaled(channels: int, width: float) -> int:
    """Return `channels` times `width`, rounded half up, at least 1."""
    return max(1, math.floor(channels * width + 0.5))


def check_choice(option: str, value: object, valid: Collection[object]) -> None:
    """Raise UserError unless `value` is one of the valid values of `option`."""
    if value not in valid:
        raise UserError(f"{option} must be one of {list(valid)}, not {value!r}")


def check_flags(**flags: object) -> None:
    """Raise UserError unless every option is True or False."""
    for option, value in flags.items():
        check_choice(option, value, (True, False))


def check_options(
    classes: int,
    in_channels: int,
    width: float,
    stem_stride: int,
    padding: str,
    borders: str = "torch",
) -> None:
    """Raise UserError for a bad value of an option that the networks have in common."""
    for option, value in {"classes": classes, "in_channels": in_channels}.items():
        if value < 1:
            raise UserError(f"{option} must be at least 1, not {value!r}")
    if not 0 < width < math.inf:
        raise UserError(f"width must be positive and finite, not {width!r}")
    check_choice("stem_stride", stem_stride, (1, 2))
    check_choice("padding", padding, PADDINGS)
    check_choice("borders", borders, BORDERS)


def batch_norm(epsilon: float, momentum: float) -> Norm:
    """Return a constructor of BN; `momentum` is the weight of the new batch, as in PyTorch."""
    if not 0 < epsilon < math.inf:
        raise UserError(f"norm_epsilon must be positive and finite, not {epsilon!r}")
    if not 0 < momentum <= 1:
        raise UserError(f"norm_momentum must be in (0, 1], not {momentum!r}")
    return partial(nn.BatchNorm2d, eps=epsilon, momentum=momentum)


def head(hidden: int, width: float) -> tuple[int, ...]:
    """Return the sizes of `hidden` dense layers, 4096 at width 1 (Chollet 2017, section 4.5.1)."""
    if hidden < 0:
        raise UserError(f"hidden must be at least 0 dense layers, not {hidden!r}")
    return (scaled(4096, width),) * hidden


class ConvNorm(nn.Module):
    """Convolution without bias, BN, ReLU: (N, inputs, H, W) -> (N, outputs, H', W').

    With TensorFlow's `borders` a padded convolution with stride 2 must be a 3x3 one.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Kernel,
        norm: Norm,
        stride: int = 1,
        padding: Kernel = 0,
        borders: str = "torch",
    ) -> None:
        super().__init__()
        padded = padding not in (0, (0, 0))
        kind = bordered(nn.Conv2d, borders) if padded and stride == 2 else nn.Conv2d
        self.conv = kind(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = norm(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.norm(self.conv(x)))
        return y


class Depthwise(nn.Conv2d):
    """Depthwise 3x3 convolution: (N, channels, H, W) -> (N, channels, H / stride, W / stride)."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__(channels, channels, 3, stride, padding=1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) >= 3:
            return super().forward(x)
        # On a map smaller than its kernel oneDNN uses a reference implementation, 20 times slower
        # in the weight gradient, unless the padding is part of the input.
        x = pad(x, (1, 1, 1, 1))
        return conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class SameConv(nn.Conv2d):
    """3x3 convolution with stride 2 and padding 1, which follows TensorFlow's "same" padding.

    (N, inputs, H, W) -> (N, outputs, H / 2, W / 2), sizes rounded up. Where TensorFlow pads an odd
    number of pixels, it pads the larger part at the end (tensorflow.org, tf.nn, "Notes on
    padding"): an odd size by 1 and 1, as PyTorch does, an even size by 0 and 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        top, left = _before(x)
        if top and left:
            return super().forward(x)
        x = pad(x, (left, 1, top, 1))
        return conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class SameDepthwise(SameConv, Depthwise):
    """Depthwise 3x3 convolution with stride 2 and TensorFlow's "same" padding."""


class SameMaxPool(nn.MaxPool2d):
    """3x3 max-pool with stride 2 and TensorFlow's "same" padding, as in `SameConv`."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = max_pool2d(x, 3, 2, _before(x), ceil_mode=True)
        return y


class SameAvgPool(nn.AvgPool2d):
    """3x3 average pool with stride 2 and TensorFlow's "same" padding, as in `SameConv`.

    It is the mean of those pixels of the window that lie in the image.
    """

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(x, 3, 2, _before(x), ceil_mode=True, count_include_pad=False)


def _before(x: Tensor) -> tuple[int, int]:
    """Return TensorFlow's padding above and left of x (N, C, H, W) for 3x3 windows, stride 2."""
    return x.shape[2] % 2, x.shape[3] % 2


_TENSORFLOW: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: SameConv,
    Depthwise: SameDepthwise,
    nn.MaxPool2d: SameMaxPool,
    nn.AvgPool2d: SameAvgPool,
}


def bordered(kind: type[Layer], borders: str) -> type[Layer]:
    """Return the class of a padded 3x3 layer with stride 2: `kind`, or TensorFlow's form of it."""
    return cast(type[Layer], _TENSORFLOW[kind]) if borders == "tensorflow" else kind


class Segmented(nn.Module):
    """3x3 convolutions on independent segments of the channels: (N, channels, H, W) -> the same.

    One segment is a standard convolution, one per channel a depthwise one (arXiv:1610.02357,
    section 1.2). Where `segments` does not divide the channels, the first ones are wider by one.
    """

    def __init__(self, channels: int, segments: int) -> None:
        super().__init__()
        segments = min(segments, channels)
        size, wider = divmod(channels, segments)
        self.sizes = [wider * (size + 1), (segments - wider) * size]
        self.wide = _grouped(self.sizes[0], wider) if wider else None
        self.narrow = _grouped(self.sizes[1], segments - wider)

    def forward(self, x: Tensor) -> Tensor:
        if self.wide is None:
            y: Tensor = self.narrow(x)
            return y
        wide, narrow = torch.split(x, self.sizes, dim=1)
        return torch.cat([self.wide(wide), self.narrow(narrow)], dim=1)


def _grouped(channels: int, segments: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=segments, bias=False)


class SeparableConv(nn.Module):
    """Depthwise 3x3, [BN], [activation], pointwise 1x1, BN: from `inputs` to `outputs` channels.

    In the paper (arXiv:1610.02357, section 4.7) one BN follows the pointwise step; it mentions none
    between the two steps, also where it puts an activation there.

    Args:
        inputs, outputs: channels.
        norm: a constructor of BN.
        between: the activation between the two steps: "none", "relu" or "elu".
        norm_between: BN between the two steps, before the activation if there is one.
        pointwise_first: the other order, which section 1.2 calls unimportant.
        segments: 0 for a depthwise spatial step; or how many segments of channels it acts on.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norm: Norm,
        between: str = "none",
        norm_between: bool = False,
        pointwise_first: bool = False,
        segments: int = 0,
    ) -> None:
        super().__init__()
        check_choice("activation_between", between, ACTIVATIONS)
        if segments < 0:
            raise UserError(f"segments must be 0, one per channel, or more, not {segments!r}")
        activation = ACTIVATIONS[between]
        self.pointwise_first = pointwise_first
        channels = outputs if pointwise_first else inputs  # of the spatial step
        self.depthwise = Segmented(channels, segments) if segments else Depthwise(channels)
        self.norm_between = norm(channels) if norm_between else None
        self.activation = None if activation is None else activation()
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.convolved(x))
        return y

    def convolved(self, x: Tensor) -> Tensor:
        """Return the input of the last BN."""
        x = self.pointwise(x) if self.pointwise_first else self.depthwise(x)
        if self.norm_between is not None:
            x = self.norm_between(x)
        if self.activation is not None:
            x = self.activation(x)
        y: Tensor = self.depthwise(x) if self.pointwise_first else self.pointwise(x)
        return y


class Mixed(nn.Module):
    """Every child on the same input, the results concatenated along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Classifier(nn.Module):
    """Global average pool, [dense, ReLU] x n, [dropout], dense: (N, inputs, H, W) -> (N, classes).

    Args:
        inputs: channels.
        classes: the number of logits.
        dropout: the probability to drop an input of the last layer.
        hidden: the sizes of the dense layers before the last one; all have biases.
    """

    def __init__(
        self, inputs: int, classes: int, dropout: float, hidden: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise UserError(f"dropout must be in [0, 1), not {dropout!r}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for index, outputs in enumerate(hidden, start=1):
            layers |= {f"dense{index}": nn.Linear(inputs, outputs), f"relu{index}": nn.ReLU()}
            inputs = outputs
        self.hidden = nn.Sequential(layers) if hidden else None
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.dense = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(dim=(2, 3))
        if self.hidden is not None:
            x = self.hidden(x)
        if self.dropout is not None:
            x = self.dropout(x)
        logits: Tensor = self.dense(x)
        return logits
