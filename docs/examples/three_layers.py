"""Three convolutions with a shortcut: an example of a network of one's own."""

from torch import Tensor, nn

from sepablate.models.layers import Classifier, check_flags, check_options, scaled

CHANNELS = 64


class ThreeLayers(nn.Module):
    """Three 3x3 convolutions with ReLU: (N, in_channels, H, W) -> logits (N, classes).

    Args:
        width: factor on the channel count.
        shortcut: whether the output of the first convolution is added to that of the second.

    Raises UserError for a bad value of an option.
    """

    def __init__(
        self, classes: int = 10, in_channels: int = 3, width: float = 1.0, shortcut: bool = True
    ) -> None:
        super().__init__()
        check_options(classes, in_channels, width, stem_stride=1, padding="same")
        check_flags(shortcut=shortcut)
        channels = scaled(CHANNELS, width)
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.third = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = shortcut
        self.classifier = Classifier(channels, classes, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()  # (N, 64, H, W)
        y = self.second(x).relu()
        y = self.third(x + y if self.shortcut else y).relu()
        logits: Tensor = self.classifier(y)  # (N, classes)
        return logits
