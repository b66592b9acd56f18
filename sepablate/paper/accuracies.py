"""Published test accuracies by data set, to compare a training's with.

Numbers of repositories are those of their README. Sizes are given where the source gives them.
"""

from dataclasses import dataclass
from typing import Literal

from sepablate.paper import mobilenets, xception

Kind = Literal["same", "other"]
FAR = 0.03  # below the lowest accuracy of the same kind: too far for a claim on final accuracy


@dataclass(frozen=True)
class Reference:
    """A published test accuracy on a data set.

    Args:
        network: its name in the source.
        accuracy: the fraction of the test images that are classified right.
        source: who published it, in words.
        kind: "same" for an Inception network or one of depthwise separable convolutions, which are
            the networks trained here, though in another size or recipe; "other" for the rest.
        parameters: their number as the source prints it; empty where it does not.
    """

    network: str
    accuracy: float
    source: str
    kind: Kind
    parameters: str = ""


_README = "zalandoresearch/fashion-mnist"
FASHION_MNIST = (
    Reference("2 Conv Layers with max pooling (Keras)", 0.876, _README, "other"),
    Reference("2 Conv Layers net", 0.925, _README, "other", "< 100 K"),
    Reference("2 Conv Layers with 3 FC", 0.932, _README, "other", "1.8 M"),
    Reference("GoogleNet with cross-entropy loss", 0.937, _README, "same"),
    Reference("ResNet18", 0.949, _README, "other"),
    Reference("MobileNet", 0.950, _README, "same"),
    Reference("DenseNet-BC", 0.954, _README, "other", "768 K"),
    Reference("WRN-28-10 + Random Erasing", 0.963, _README, "other"),
    Reference("WRN40-4", 0.967, _README, "other", "8.9 M"),
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
    Reference("inception_v3", 0.9374, _HUYVNPHAN, "same", "21.6 M"),
    Reference("googlenet", 0.9285, _HUYVNPHAN, "same", "5.5 M"),
    Reference("Xception, simplified", 0.9456, _DYFCALID, "same", "1.36 M"),
    Reference("InceptionV3, simplified", 0.9420, _DYFCALID, "same", "1.17 M"),
    Reference("resnet20", 0.9260, "chenyaofo/pytorch-cifar-models", "other", "0.27 M"),
)

IMAGENET = (
    *(
        Reference(
            name,
            accuracy.top_1,
            f"{xception.SOURCE}, table 1",
            "same" if name in xception.TABLE_3 else "other",
            f"{xception.TABLE_3[name].parameters:,}" if name in xception.TABLE_3 else "",
        )
        for name, accuracy in xception.TABLE_1.items()
    ),
    Reference(
        "MobileNet",
        mobilenets.TABLE_4["MobileNet"].accuracy / 100,
        f"{mobilenets.SOURCE}, table 4",
        "same",
        f"{mobilenets.TABLE_4['MobileNet'].parameters:g} M",
    ),
)
BY_DATA_SET = {"cifar10": CIFAR10, "fashion_mnist": FASHION_MNIST, "imagenet": IMAGENET}


def lowest_of_the_same_kind(dataset: str) -> Reference | None:
    """Return the least accurate network of the kind that is trained here; None without any."""
    same = [each for each in BY_DATA_SET.get(dataset, ()) if each.kind == "same"]
    return min(same, key=lambda each: each.accuracy, default=None)
