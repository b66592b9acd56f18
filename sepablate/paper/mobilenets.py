"""Numbers printed in the MobileNets paper: A. Howard et al., arXiv:1704.04861 v1, 17 April 2017.

Tables 1 to 9 and 12 to 14, and the misprints among its numbers. Every number stands here as it is
printed; MISPRINTS says which are wrong. Parameters are counted without batch norm and biases.
"""

from typing import NamedTuple

SOURCE = "arXiv:1704.04861v1"


class Layer(NamedTuple):
    """stride and channels; size: of the input, in pixels. kernel: 0 for the dense layer."""

    kind: str
    kernel: int
    stride: int
    inputs: int
    outputs: int
    size: int


class Share(NamedTuple):
    """Percent of a network's multiply-adds and parameters."""

    mult_adds: float
    parameters: float


class Cost(NamedTuple):
    """Millions of multiply-adds and of parameters."""

    mult_adds: float
    parameters: float


class Network(NamedTuple):
    """accuracy: top-1 on ImageNet, in percent; mult_adds, parameters: in millions."""

    accuracy: float
    mult_adds: float
    parameters: float


class Detector(NamedTuple):
    """mean_average_precision: on COCO minival, in percent; mult_adds: in thousands of millions;
    parameters: in millions."""

    mean_average_precision: float
    mult_adds: float
    parameters: float


class Misprint(NamedTuple):
    """What is printed at a place, what it should say, and why."""

    place: str
    printed: float
    correct: float
    why: str


def _separable(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[Layer, Layer]:
    """Two rows: the depthwise convolution, and the 1x1 convolution after it."""
    return (
        Layer("Conv dw", 3, stride, inputs, inputs, size),
        Layer("Conv", 1, 1, inputs, outputs, size // stride),
    )


# Section 3.2, table 1, without the average pool and the softmax.
TABLE_1 = (
    Layer("Conv", 3, 2, 3, 32, 224),
    *_separable(32, 64, 112),
    *_separable(64, 128, 112, stride=2),
    *_separable(128, 128, 56),
    *_separable(128, 256, 56, stride=2),
    *_separable(256, 256, 28),
    *_separable(256, 512, 28, stride=2),
    *(5 * _separable(512, 512, 14)),
    *_separable(512, 1024, 14, stride=2),
    Layer("Conv dw", 3, 2, 1024, 1024, 7),
    Layer("Conv", 1, 1, 1024, 1024, 7),
    Layer("FC", 0, 1, 1024, 1000, 1),
)

# Section 3.2, table 2.
TABLE_2 = {
    "Conv 1x1": Share(94.86, 74.59),
    "Conv DW 3x3": Share(3.06, 1.06),
    "Conv 3x3": Share(1.19, 0.02),
    "Fully Connected": Share(0.18, 24.33),
}

# Section 3.4, table 3: a 3x3 layer, 512 to 512 channels, 14 x 14; each row adds to the one above.
TABLE_3 = {
    "Convolution": Cost(462, 2.36),
    "Depthwise Separable Conv": Cost(52.3, 0.27),
    "width 0.75": Cost(29.6, 0.15),
    "resolution 0.714": Cost(15.1, 0.15),
}

# Section 4.1, tables 4 and 5.
TABLE_4 = {
    "Conv MobileNet": Network(71.7, 4866, 29.3),
    "MobileNet": Network(70.6, 569, 4.2),
}
TABLE_5 = {
    "0.75 MobileNet": Network(68.4, 325, 2.6),
    "Shallow MobileNet": Network(65.3, 307, 2.9),
}

# Section 4.2, tables 6 to 9. The first number of a name is the width, the last one the resolution.
TABLE_6 = {
    "1.0 MobileNet-224": Network(70.6, 569, 4.2),
    "0.75 MobileNet-224": Network(68.4, 325, 2.6),
    "0.5 MobileNet-224": Network(63.7, 149, 1.3),
    "0.25 MobileNet-224": Network(50.6, 41, 0.5),
}
TABLE_7 = {
    "1.0 MobileNet-224": Network(70.6, 569, 4.2),
    "1.0 MobileNet-192": Network(69.1, 418, 4.2),
    "1.0 MobileNet-160": Network(67.2, 290, 4.2),
    "1.0 MobileNet-128": Network(64.4, 186, 4.2),
}
TABLE_8 = {
    "1.0 MobileNet-224": Network(70.6, 569, 4.2),
    "GoogleNet": Network(69.8, 1550, 6.8),
    "VGG 16": Network(71.5, 15300, 138),
}
TABLE_9 = {
    "0.50 MobileNet-160": Network(60.2, 76, 1.32),
    "Squeezenet": Network(57.5, 1700, 1.25),
    "AlexNet": Network(57.2, 720, 60),
}

# Section 4.5, table 12; here `accuracy` is the mean average precision over face attributes.
TABLE_12 = {
    "1.0 MobileNet-224": Network(88.7, 568, 3.2),
    "0.5 MobileNet-224": Network(88.1, 149, 0.8),
    "0.25 MobileNet-224": Network(87.2, 45, 0.2),
    "1.0 MobileNet-128": Network(88.1, 185, 3.2),
    "0.5 MobileNet-128": Network(87.7, 48, 0.8),
    "0.25 MobileNet-128": Network(86.4, 15, 0.2),
    "Baseline": Network(86.9, 1600, 7.5),
}

# Section 4.6, table 13, by framework with its resolution, and network.
TABLE_13 = {
    ("SSD 300", "deeplab-VGG"): Detector(21.1, 34.9, 33.1),
    ("SSD 300", "Inception V2"): Detector(22.0, 3.8, 13.7),
    ("SSD 300", "MobileNet"): Detector(19.3, 1.2, 6.8),
    ("Faster-RCNN 300", "VGG"): Detector(22.9, 64.3, 138.5),
    ("Faster-RCNN 300", "Inception V2"): Detector(15.4, 118.2, 13.3),
    ("Faster-RCNN 300", "MobileNet"): Detector(16.4, 25.2, 6.1),
    ("Faster-RCNN 600", "VGG"): Detector(25.7, 149.6, 138.5),
    ("Faster-RCNN 600", "Inception V2"): Detector(21.9, 129.6, 13.3),
    ("Faster-RCNN 600", "MobileNet"): Detector(19.8, 30.5, 6.1),
}

# Section 4.7, table 14; here `accuracy` is of face embeddings, in a column headed "1e-4".
TABLE_14 = (
    ("FaceNet", Network(83.0, 1600, 7.5)),
    ("1.0 MobileNet-160", Network(79.4, 286, 4.9)),
    ("1.0 MobileNet-128", Network(78.3, 185, 5.5)),
    ("0.75 MobileNet-128", Network(75.2, 166, 3.4)),
    ("0.75 MobileNet-128", Network(72.5, 108, 3.8)),
)

MISPRINTS = (
    Misprint(
        "table 1, stride of the last depthwise convolution",
        2,
        1,
        "its input and its output are both 7 x 7",
    ),
    Misprint(
        "table 2, percent of multiply-adds in the 3x3 convolution",
        1.19,
        1.91,
        "two digits are swapped: the column adds up to 99.29, and table 1 gives 1.91",
    ),
    Misprint(
        "section 4.4, multiply-adds of the PlaNet MobileNet",
        0.58e6,
        0.58e9,
        "million stands for billion: its body is the MobileNet of table 1",
    ),
    Misprint(
        "section 4.5, parameters of the large face attribute classifier",
        75e6,
        7.5e6,
        "the decimal point is missing: table 12 has 7.5 million for it",
    ),
    Misprint(
        "table 14, resolution of the first 0.75 MobileNet-128",
        128,
        160,
        "two rows have one name, and its 166 million multiply-adds are those of 160 pixels",
    ),
)
