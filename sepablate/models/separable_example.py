"""A small network of six separable convolutions and two max-pools.

It is the first example of Keras' `SeparableConv2D`, for 64 x 64 colour images of ten classes; Keras
gives no result with it.
"""

from collections import OrderedDict

from torch import Tensor, nn

from sepablate.errors import UserError
from sepablate.models.layers import Classifier, check_flags, check_options, scaled

STAGES = ((32, 64), (64, 128), (64, 128))  # a max-pool between two stages
SMALLEST = 32  # pixels: below that, nothing is left for the last convolution


class SeparableExample(nn.Module):
    """Keras' example network: (N, in_channels, H, W) -> logits (N, classes).

    It has 38,949 parameters by default. Convolutions have no padding, biases after the pointwise
    step only, and no BN.

    Args:
        width: factor on every channel count and on the hidden dense layer.
        separable: False makes every separable convolution a standard 3x3 one, with a bias.

    Raises UserError for a bad value of an option, and for images smaller than 32 x 32.
    """

    def __init__(
        self, classes: int = 10, in_channels: int = 3, width: float = 1.0, separable: bool = True
    ) -> None:
        super().__init__()
        check_options(classes, in_channels, width, stem_stride=1, padding="valid")
        check_flags(separable=separable)
        body: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = in_channels
        for stage, layers in enumerate(STAGES, start=1):
            if stage > 1:
                body[f"pool{stage - 1}"] = nn.MaxPool2d(2)
            for number, channels in enumerate(layers, start=1):
                outputs = scaled(channels, width)
                body[f"stage{stage}_{number}"] = _convolution(inputs, outputs, separable)
                inputs = outputs
        self.body = nn.Sequential(body)
        self.classifier = Classifier(inputs, classes, dropout=0.0, hidden=(scaled(32, width),))

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < SMALLEST:
            size = " x ".join(map(str, x.shape[2:]))
            raise UserError(f"images must be at least {SMALLEST} x {SMALLEST}, not {size}")
        x = self.body(x)  # (N, 128, 9, 9) of 64 x 64
        logits: Tensor = self.classifier(x)  # (N, classes)
        return logits


def _convolution(inputs: int, outputs: int, separable: bool) -> nn.Sequential:
    """Return a 3x3 convolution and ReLU: (N, inputs, H, W) -> (N, outputs, H - 2, W - 2)."""
    steps: dict[str, nn.Module]
    if separable:
        depthwise = nn.Conv2d(inputs, inputs, 3, groups=inputs, bias=False)
        steps = {"depthwise": depthwise, "pointwise": nn.Conv2d(inputs, outputs, 1)}
    else:
        steps = {"full": nn.Conv2d(inputs, outputs, 3)}
    return nn.Sequential(OrderedDict(steps, relu=nn.ReLU()))
