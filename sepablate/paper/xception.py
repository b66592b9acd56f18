"""Numbers printed in the Xception paper: F. Chollet, arXiv:1610.02357 v3, 4 April 2017.

One table per table of the paper. Figures 6 to 10 are curves without printed numbers; none is here.
"""

from typing import NamedTuple

SOURCE = "arXiv:1610.02357v3"


class ImageNet(NamedTuple):
    """Accuracy on ImageNet's validation images, one crop and one model, as fractions."""

    top_1: float
    top_5: float


class Size(NamedTuple):
    """Trainable parameters at 1000 classes without FC layers; gradient steps/s on 60 K80 GPUs."""

    parameters: int
    steps_per_second: int


# Section 4.5.1, table 1. VGG-16 and ResNet-152 are quoted there "only as a reminder".
TABLE_1 = {
    "VGG-16": ImageNet(0.715, 0.901),
    "ResNet-152": ImageNet(0.770, 0.933),
    "Inception V3": ImageNet(0.782, 0.941),
    "Xception": ImageNet(0.790, 0.945),
}

# Section 4.5.1, table 2: JFT, mean average precision of the first 100 predictions on FastEval14k.
TABLE_2 = {
    "Inception V3, no FC layers": 6.36,
    "Xception, no FC layers": 6.70,
    "Inception V3, with FC layers": 6.50,
    "Xception, with FC layers": 6.78,
}
# Section 4.2 and figure 7's steps. The batch is not printed: 32 is that of Inception V3's paper.
JFT_RATE, JFT_DECAY = 0.001, 0.9
JFT_SAMPLES_A_DECAY, JFT_STEPS, JFT_BATCH = 3_000_000, 30_000_000, 32
JFT_GAIN = 0.043  # section 4.5.1, relative; table 2 gives it for the networks with FC layers

# Section 4.5.2, table 3.
TABLE_3 = {
    "Inception V3": Size(23_626_728, 31),
    "Xception": Size(22_855_952, 28),
}
WITHIN = 0.035  # section 4.5.2: how near the two sizes are to each other

# The differences that studies claim, as far as the paper prints them: by left, right and metric.
DIFFERENCES = {
    ("xception", "inception_v3", "accuracy"): round(
        TABLE_1["Xception"].top_1 - TABLE_1["Inception V3"].top_1, 3
    ),
}

# Section 4.4: about 3 days of training on ImageNet. With table 3's speed and 32 images a step,
# which the paper does not give, one run sees some 230 million images, 180 times ImageNet.
DAYS, IMAGES_A_STEP = 3, 32
IMAGES_SEEN = DAYS * 24 * 3600 * TABLE_3["Xception"].steps_per_second * IMAGES_A_STEP

# Settings that the paper leaves open, by the same keys as RECIPES, for both data sets.
OPEN = (
    "batch_size",
    "epochs",
    "steps",
    "averaging_horizon",
    "model.norm_epsilon",
    "model.norm_momentum",
    "shift",
    "flip",
    "seeds",
)
_BOTH = {
    "momentum": "0.9",
    "weight_decay": "1e-5 for Xception, 4e-5 for Inception V3",
    **dict.fromkeys(OPEN, "not given"),
}

# Sections 4.2 and 4.3, by the names of recipes and the keys of a run's config.
RECIPES = {
    "imagenet": {
        "dataset": "ImageNet (and JFT)",
        "optimizer": "SGD with momentum",
        "learning_rate": "0.045",
        "decay": "0.94",
        "decays": "every 2 epochs; the number of epochs is not given",
        "model.dropout": "0.5",
        **_BOTH,
    },
    "jft": {
        "dataset": "JFT, 17,000 classes",
        "optimizer": "RMSprop with momentum",
        "learning_rate": "0.001",
        "decay": "0.9",
        "decays": "every 3,000,000 samples",
        "model.dropout": "none",
        "rho": "not given",
        "epsilon": "not given",
        "initial_square": "not given",
        **_BOTH,
        "steps": "30 million iterations",
    },
}
RECIPES["segments"] = RECIPES["imagenet"]  # the question of section 1.2, with the same recipe
RECIPE = RECIPES["imagenet"]
