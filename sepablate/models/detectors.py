"""SSD with one of the networks as its base, as a network that is trained like the others.

MobileNets' paper (arXiv:1704.04861, section 4.6, table 13) compares networks as bases of detectors.
The layers are those of `ssd`. Their predictions are one tensor, and the base has the scale's width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sepablate.errors import UserError
from sepablate.models import ssd

PROBED = 96  # pixels of the image that shows how many channels the maps have


class Detector(nn.Module):
    """SSD: (N, in_channels, H, W) -> (N, default boxes, classes + 1 + 4).

    Of each default box: the logits of the background and of the classes, and the four numbers by
    which the predicted box differs from it.

    Args:
        base: the name of the network.
        classes: without the background.
        maps: how many the heads see: two of the base, and each further one halves the last.
        options: of the base.

    Raises UserError for a bad value of an option.
    """

    def __init__(self, base: str, classes: int, maps: int, **options: Any) -> None:
        super().__init__()
        if type(maps) is not int or not 2 <= maps <= len(ssd.BOXES):
            raise UserError(f"maps must be 2 to {len(ssd.BOXES)}, not {maps!r}")
        boxes = ssd.BOXES[:maps]
        self.layers = ssd.detector_layers(
            base, classes=classes, image_size=PROBED, boxes=boxes, device="cpu", **options
        )

    def forward(self, x: Tensor) -> Tensor:
        predicted = self.layers(x)
        return torch.cat([predicted["cls_logits"], predicted["bbox_regression"]], 2)


class SSDInceptionV3(Detector):
    """`Detector` with Inception V3 as its base; its options are those of the two."""

    def __init__(
        self,
        classes: int = 80,
        in_channels: int = 3,
        maps: int = 6,
        width: float = 1.0,
        stem_stride: int = 2,
        padding: str = "valid",
        norm_epsilon: float = 1e-3,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__(
            "inception_v3",
            classes,
            maps,
            in_channels=in_channels,
            width=width,
            stem_stride=stem_stride,
            padding=padding,
            norm_epsilon=norm_epsilon,
            norm_momentum=norm_momentum,
        )


class SSDMobileNetV1(Detector):
    """`Detector` with MobileNet v1 as its base; its options are those of the two."""

    def __init__(
        self,
        classes: int = 80,
        in_channels: int = 3,
        maps: int = 6,
        width: float = 1.0,
        stem_stride: int = 2,
        separable: bool = True,
        norm_epsilon: float = 1e-3,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__(
            "mobilenet_v1",
            classes,
            maps,
            in_channels=in_channels,
            width=width,
            stem_stride=stem_stride,
            separable=separable,
            norm_epsilon=norm_epsilon,
            norm_momentum=norm_momentum,
        )


class SSDXception(Detector):
    """`Detector` with Xception as its base; its options are those of the two."""

    def __init__(
        self,
        classes: int = 80,
        in_channels: int = 3,
        maps: int = 6,
        width: float = 1.0,
        stem_stride: int = 2,
        padding: str = "valid",
        norm_epsilon: float = 1e-3,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__(
            "xception",
            classes,
            maps,
            in_channels=in_channels,
            width=width,
            stem_stride=stem_stride,
            padding=padding,
            norm_epsilon=norm_epsilon,
            norm_momentum=norm_momentum,
        )
