"""Published accuracies, to compare a training's with."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["same", "other"]


@dataclass(frozen=True)
class Reference:
    """A published test accuracy on a data set.

    Args:
        network: its name in the source.
        accuracy: the fraction of the test images that are classified right.
        source: who published it, in words.
        kind: "same" for an Inception network or one of depthwise separable convolutions, which are
            the networks trained here, though in another size or recipe; "other" for the rest.
    """

    network: str
    accuracy: float
    source: str
    kind: Kind


_README = "the data set's README"
FASHION_MNIST = (
    Reference("2 Conv Layers net <100K parameters", 0.925, _README, "other"),
    Reference("2 Conv Layers with 3 FC 1.8M parameters", 0.932, _README, "other"),
    Reference("GoogleNet with cross-entropy loss", 0.937, _README, "same"),
    Reference("ResNet18", 0.949, _README, "other"),
    Reference("MobileNet", 0.950, _README, "same"),
    Reference("DenseNet-BC 768K params", 0.954, _README, "other"),
    Reference("WRN-28-10 + Random Erasing", 0.963, _README, "other"),
)

_FAST = "WeihaoZhuang/cifar10-100-fast-training, 70 epochs"
_KUANGLIU = "kuangliu/pytorch-cifar"
_HUYVNPHAN = "huyvnphan/PyTorch_CIFAR10"
_DYFCALID = "dyfcalid/DeepLearning-CNN-Models, 100 epochs"
CIFAR10 = (
    Reference("MobileNet", 0.9225, _FAST, "same"),
    Reference("InceptionV3", 0.9555, _FAST, "same"),
    Reference("GoogleNet", 0.9535, _FAST, "same"),
    Reference("ResNet18", 0.9532, _FAST, "other"),
    Reference("MobileNetV2", 0.9443, _KUANGLIU, "same"),
    Reference("ResNet18", 0.9302, _KUANGLIU, "other"),
    Reference("DenseNet121", 0.9504, _KUANGLIU, "other"),
    Reference("inception_v3", 0.9374, _HUYVNPHAN, "same"),
    Reference("googlenet", 0.9285, _HUYVNPHAN, "same"),
    Reference("Xception, simplified, 1.36 M parameters", 0.9456, _DYFCALID, "same"),
    Reference("InceptionV3, simplified, 1.17 M parameters", 0.9420, _DYFCALID, "same"),
    Reference("resnet20, 0.27 M parameters", 0.9260, "chenyaofo/pytorch-cifar-models", "other"),
)
