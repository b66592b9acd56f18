"""What the networks share: widths, layers, checks of arguments, seeded initial weights."""

import hashlib
import math
from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

Norm = Callable[[int], nn.Module]
Kernel = int | tuple[int, int]

# A switch that is off builds no module: "none" has no constructor.
ACTIVATIONS: dict[str, Callable[[], nn.Module] | None] = {
    "none": None,
    "relu": nn.ReLU,
    "elu": nn.ELU,
}
PADDINGS = ("valid", "same")


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded half up, at least 1."""
    return max(1, math.floor(channels * width + 0.5))


def check_choice(option: str, value: object, valid: Collection[object]) -> None:
    """ValueError unless `value` is one of the valid values of `option`."""
    if value not in valid:
        raise ValueError(f"{option} must be one of {list(valid)}, not {value!r}")


def check_options(
    classes: int, in_channels: int, width: float, stem_stride: int, padding: str
) -> None:
    """ValueError for a bad value of an option that every network has."""
    for option, value in {"classes": classes, "in_channels": in_channels}.items():
        if value < 1:
            raise ValueError(f"{option} must be at least 1, not {value!r}")
    if not 0 < width < math.inf:
        raise ValueError(f"width must be positive and finite, not {width!r}")
    check_choice("stem_stride", stem_stride, (1, 2))
    check_choice("padding", padding, PADDINGS)


def batch_norm(epsilon: float, momentum: float) -> Norm:
    """A constructor of BN; `momentum` is the weight of the new batch, as PyTorch counts it."""
    if not 0 < epsilon < math.inf:
        raise ValueError(f"norm_epsilon must be positive and finite, not {epsilon!r}")
    if not 0 < momentum <= 1:
        raise ValueError(f"norm_momentum must be in (0, 1], not {momentum!r}")
    return partial(nn.BatchNorm2d, eps=epsilon, momentum=momentum)


class ConvNorm(nn.Module):
    """Convolution without bias, BN, ReLU: (N, inputs, H, W) -> (N, outputs, H', W')."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Kernel,
        norm: Norm,
        stride: int = 1,
        padding: Kernel = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = norm(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(x)))


class Depthwise(nn.Conv2d):
    """3x3 convolution of each channel by itself: (N, channels, H, W) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) >= 3:
            return super().forward(x)
        # On a map smaller than its kernel oneDNN takes a reference path, 20 times slower in the
        # weight gradient, unless the border is really there.
        return conv2d(pad(x, (1, 1, 1, 1)), self.weight, groups=self.groups)


class SeparableConv(nn.Module):
    """Depthwise 3x3, [BN], [activation], pointwise 1x1, BN: from `inputs` to `outputs` channels.

    In the paper one BN follows the pointwise step and nothing is said to normalise between the two
    steps, also where `between` puts an activation there (arXiv:1610.02357, section 4.7).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norm: Norm,
        between: str = "none",
        norm_between: bool = False,
    ) -> None:
        super().__init__()
        check_choice("activation_between", between, ACTIVATIONS)
        activation = ACTIVATIONS[between]
        self.depthwise = Depthwise(inputs)
        self.norm_between = norm(inputs) if norm_between else None
        self.activation = None if activation is None else activation()
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(x)
        if self.norm_between is not None:
            x = self.norm_between(x)
        if self.activation is not None:
            x = self.activation(x)
        return self.norm(self.pointwise(x))


class Mixed(nn.Module):
    """Every child on the same input, the results side by side along the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Classifier(nn.Module):
    """Global average pool, [dropout], dense layer with bias: (N, inputs, H, W) -> (N, classes)."""

    def __init__(self, inputs: int, classes: int, dropout: float) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {dropout!r}")
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.dense = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(dim=(2, 3))
        if self.dropout is not None:
            x = self.dropout(x)
        return self.dense(x)


def initialise(model: nn.Module, seed: int) -> None:
    """Draw the weights of `model`, in place, on whatever device it is.

    Convolutions: He normal by fan-in (for a depthwise one the fan-in is 9). Dense: Normal(0, 0.01).
    BN: weight 1, bias 0, fresh statistics. Biases: 0. Every weight has its own generator, named by
    the seed and the parameter, so variants that share a parameter start from the same values of it.

    Raises TypeError for a layer with parameters that it has no rule for.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            _draw(module.weight, math.sqrt(2 / module.weight[0].numel()), seed, f"{name}.weight")
        elif isinstance(module, nn.Linear):
            _draw(module.weight, 0.01, seed, f"{name}.weight")
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif next(module.parameters(recurse=False), None) is not None:
            raise TypeError(f"no rule to initialise {name!r}, a {type(module).__name__}")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def _draw(weight: Tensor, deviation: float, seed: int, name: str) -> None:
    """Fill `weight` from Normal(0, deviation), drawn on the CPU so that devices agree."""
    digest = hashlib.sha256(f"{seed}/init/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
    weight.copy_(deviation * torch.randn(weight.shape, generator=generator))
