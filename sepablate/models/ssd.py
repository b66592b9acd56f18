"""SSD with one of the networks as its base. Liu et al. 2016, arXiv:1512.02325.

torchvision has the detector: its default boxes, how they are matched, the loss, the suppression of
double detections. Here are the bases, the maps that the heads see, and heads of 1x1 convolutions.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead, SSDScoringHead, ssd300_vgg16
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import Conv2dNormActivation

from sepablate.errors import UserError
from sepablate.models.constructor import construct, default_options
from sepablate.models.inception_v3 import InceptionV3
from sepablate.models.layers import Norm, batch_norm, check_choice, scaled
from sepablate.models.mobilenet_v1 import MobileNetV1
from sepablate.models.xception import Xception

HEADS = ("pointwise", "standard", "separable")
CLASSES, IMAGE_SIZE = 80, 300  # COCO's, and the pixels of SSD 300
INCEPTION_V3_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e")  # of the larger maps
# Of the further maps at width 1, and the fewest at any, as the authors of MobileNet have them:
# github.com/tensorflow/models, 059631b, object_detection/models/ssd_mobilenet_v1_feature_extractor.
CHANNELS, FEWEST = (512, 256, 256, 128), 16
# Aspect ratios of each map's default boxes, in addition to 1; each stands for its inverse, too.
RATIOS = ([2], *([2, 3] for _ in range(5)))
SMALLEST, LARGEST = 0.2, 0.95  # the boxes of the first and of the last map, of the image's side
BOXES = tuple(2 + 2 * len(ratios) for ratios in RATIOS)  # default boxes of a place, of each map


def _inception_v3(network: Any) -> tuple[nn.Module, nn.Module]:
    blocks = (network.get_submodule(f"mixed_{name}") for name in INCEPTION_V3_BLOCKS)
    first = nn.Sequential(network.stem, *blocks)
    return first, nn.Sequential(network.mixed_7a, network.mixed_7b, network.mixed_7c)


def _mobilenet_v1(network: Any) -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(network.stem, network.body[:-2]), network.body[-2:]


def _xception(network: Any) -> tuple[nn.Module, nn.Module]:
    return nn.Sequential(network.stem, network.entry, network.middle), network.exit


NETWORKS: dict[str, type[nn.Module]] = {
    "inception_v3": InceptionV3,
    "mobilenet_v1": MobileNetV1,
    "xception": Xception,
}
# The layers up to the last halving of the map, and the others but for the classifier.
STAGES: dict[str, Callable[[Any], tuple[nn.Module, nn.Module]]] = {
    "inception_v3": _inception_v3,
    "mobilenet_v1": _mobilenet_v1,
    "xception": _xception,
}


class Pyramid(nn.Module):
    """The maps that the heads see: (N, in_channels, H, W) -> six, "0" to "5", or fewer.

    The first two are those of the network before and after the last halving of its map; each of
    four further layers halves it once more. Of 300 pixels MobileNet's maps have sides of 19, 10, 5,
    3, 2 and 1.

    Args:
        stages: the network's layers, in two parts.
        extra: the further layers.
    """

    def __init__(self, stages: Iterable[nn.Module], extra: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.extra = nn.ModuleList(extra)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for index, layer in enumerate([*self.stages, *self.extra]):
            x = layer(x)
            maps[str(index)] = x
        return maps


class Layers(nn.Module):
    """All layers of a detector that have weights: (N, in_channels, H, W) -> what its heads predict.

    cls_logits, of shape (N, boxes, classes + 1), where the first class is the background, and
    bbox_regression, (N, boxes, 4).

    Args:
        backbone: gives the maps; its last four come from its attribute `extra`.
        head: gives the predictions from a list of maps.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        predictions: dict[str, Tensor] = self.head([*self.backbone(x).values()])
        return predictions

    @property
    def extra(self) -> nn.Sequential:
        """Return the further layers, which follow the base."""
        extra = self.backbone.get_submodule("extra")
        return nn.Sequential(*[*extra.children()][-len(CHANNELS) :])


def detector(
    base: str,
    heads: str = "pointwise",
    classes: int = CLASSES,
    image_size: int = IMAGE_SIZE,
    **options: Any,
) -> SSD:
    """Return SSD with a network as its base: a list of images (C, H, W) in [0, 1] -> detections.

    In training it also takes targets, a dict of boxes (n, 4) in pixels and labels (n) from 1 for
    each image, and returns the two losses; see torchvision.models.detection.ssd.SSD.

    Args:
        base: the network's name.
        heads: "pointwise" for 1x1 convolutions, as MobileNet's authors have them; "standard" for
            3x3 ones, as in SSD's paper; "separable" for SSDLite's (arXiv:1801.04381, section 6.2),
            whose further layers are separable, too.
        classes: without the background.
        image_size: pixels of the side to which images are scaled.
        options: of the network.

    Raises UserError for a bad value, and for a network that cannot be the base.
    """
    layers = detector_layers(base, heads, classes, image_size, **options)
    half = [0.5] * defaults_with(base, options)["in_channels"]  # scales to [-1, 1]
    return SSD(
        layers.backbone,
        DefaultBoxGenerator([*RATIOS], SMALLEST, LARGEST),
        (image_size, image_size),
        classes + 1,
        image_mean=half,
        image_std=half,
        head=layers.head,
    )


def detector_layers(
    base: str,
    heads: str = "pointwise",
    classes: int = CLASSES,
    image_size: int = IMAGE_SIZE,
    boxes: Sequence[int] = BOXES,
    device: str = "meta",
    **options: Any,
) -> Layers:
    """Return the layers of `detector`, which are all that its cost depends on.

    Args:
        base, heads, classes, image_size, options: as of `detector`, with the same errors.
        boxes: default boxes of a place, of each map; at least the first two.
        device: that computes the shapes of the maps: the meta device takes seconds to be set up.
    """
    check_choice("base", base, STAGES)
    check_choice("heads", heads, HEADS)
    if classes < 1:
        raise UserError(f"classes must be at least 1, not {classes!r}")
    values = defaults_with(base, options)
    norm = batch_norm(values["norm_epsilon"], values["norm_momentum"])
    stages = STAGES[base](construct(NETWORKS[base], base, options))
    shapes = map_shapes(stages, values["in_channels"], image_size, device)
    channels = [shape[1] for shape in shapes]
    further = CHANNELS[: len(boxes) - len(channels)]
    channels += (max(FEWEST, scaled(count, values["width"])) for count in further)
    extra = _further_layers(channels[1:], norm, heads == "separable")
    make = {
        "pointwise": _PointwiseHead,
        "standard": SSDHead,
        "separable": partial(SSDLiteHead, norm_layer=norm),
    }[heads]
    return Layers(Pyramid(stages, extra), make(channels, [*boxes], classes + 1))


def vgg_layers(classes: int = CLASSES) -> Layers:
    """Return the layers of torchvision's SSD 300, whose base is VGG-16, at the size of its paper.

    Args:
        classes: without the background.
    """
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes + 1)
    return Layers(model.backbone, model.head)


def defaults_with(base: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return all options of a network: those given, and the others' defaults."""
    return {**default_options(NETWORKS[base]), **options}


def map_shapes(
    stages: Iterable[nn.Module], in_channels: int, image_size: int, device: str = "meta"
) -> list[tuple[int, ...]]:
    """Return the shape (1, C, H, W) of the map after each stage, for one image.

    Copies run on the device, or on the meta device if they are there, where nothing is computed.
    UserError for an image that is too small.
    """
    stages, shapes = [*stages], []
    if next(stages[0].parameters()).is_meta:
        device = "meta"
    with torch.no_grad():
        try:
            x = torch.zeros(1, in_channels, image_size, image_size, device=device)
            for stage in stages:
                x = copy.deepcopy(stage).to(device).eval()(x)
                shapes.append(tuple(x.shape))
        except RuntimeError:
            raise UserError(
                f"image_size {image_size!r}: too few pixels for this base; choose {IMAGE_SIZE}"
            ) from None
    return shapes


class _PointwiseHead(nn.Module):
    """SSD's head with 1x1 instead of 3x3 convolutions: six maps -> `Layers`' predictions."""

    def __init__(self, channels: Sequence[int], boxes: Sequence[int], classes: int) -> None:
        super().__init__()
        self.classification_head = _pointwise(channels, boxes, classes)
        self.regression_head = _pointwise(channels, boxes, 4)

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        return {
            "bbox_regression": self.regression_head(maps),
            "cls_logits": self.classification_head(maps),
        }


def _pointwise(channels: Sequence[int], boxes: Sequence[int], numbers: int) -> nn.Module:
    """Return 1x1 convolutions that predict so many numbers of each default box."""
    pairs = zip(channels, boxes, strict=True)
    convolutions = nn.ModuleList(nn.Conv2d(inputs, count * numbers, 1) for inputs, count in pairs)
    head: nn.Module = SSDScoringHead(convolutions, numbers)
    return head


def _further_layers(channels: Sequence[int], norm: Norm, separable: bool) -> list[nn.Module]:
    """Return the layers between maps with so many channels."""
    return [_halving(*pair, norm, separable) for pair in pairwise(channels)]


def _halving(inputs: int, outputs: int, norm: Norm, separable: bool) -> nn.Sequential:
    """Return a 1x1 convolution to half of the channels, and a 3x3 one with stride 2."""
    inner = outputs // 2
    layer = partial(Conv2dNormActivation, norm_layer=norm, inplace=False)
    if not separable:
        return nn.Sequential(layer(inputs, inner, 1), layer(inner, outputs, 3, stride=2))
    depthwise = layer(inner, inner, 3, stride=2, groups=inner)
    return nn.Sequential(layer(inputs, inner, 1), depthwise, layer(inner, outputs, 1))
