"""How far the verdicts carry. Chollet 2017, sections 4.5 to 4.7.

Question   Would the paper's comparisons end alike after a longer training, with another recipe, at
           another width or batch size, or on other images?
Paper      One setting for each claim: ImageNet, full width, 3 days on 60 GPUs.
Deviates   The paper does not vary the setting. Each factor is varied by itself around a training
           of a quarter of the scale's length, which is cheap; two settings cross the data with the
           length. At `laptop`, half the length and less see no image twice. Every
           length has its own whole schedule. Three seeds each, those of the scale; the scale itself
           has all its seeds, from the studies.
"""

from sepablate.study import Factor, RobustnessStudy, Setting, Times

COSTS = ("parameters", "mult_adds")

BUDGET = Factor(
    "budget",
    "Budget",
    base="1",
    levels={
        level: {"epochs": Times(times)}
        for level, times in (("1/8", 0.125), ("1/4", 0.25), ("1/2", 0.5), ("2", 2))
    },
    fields=("epochs", "steps", "evaluations"),
)
RECIPE = Factor(
    "recipe",
    "Recipe",
    base="the scale's",
    levels={
        "90 decays": {"decays": 90},
        "twice the rate": {"learning_rate": Times(2)},
        "shifted, mirrored": {"shift": 1, "flip": True},
    },
    fields=("decays", "learning_rate", "shift", "flip"),
)
WIDTH = Factor(
    "width",
    "Width",
    base="1",
    levels={"1/2": {"width": Times(0.5)}, "2": {"width": Times(2)}},
    fields=("model.width", *COSTS),
)
DATA = Factor(
    "data",
    "Data",
    base="the scale's",
    levels={
        "CIFAR-10": {"dataset": "cifar10", "shift": 4, "flip": True},
        "Fashion-MNIST": {"dataset": "fashion_mnist", "shift": 0, "flip": False},
    },
    fields=(
        "dataset",
        "data_digest",
        "image_size",
        "images",
        "epochs",
        "shift",
        "flip",
        "model.in_channels",
        "model.width",
        *COSTS,
    ),
)
BATCH = Factor(
    "batch",
    "Batch",
    base="1",
    levels={"1/2": {"batch_size": Times(0.5)}, "2": {"batch_size": Times(2)}},
    fields=("batch_size", "steps", "evaluations"),
)

STUDY = RobustnessStudy(
    title="How far the verdicts carry",
    source="arXiv:1610.02357, sections 4.5 to 4.7",
    studies=("xception_vs_inception", "residual_connections", "pointwise_activation"),
    factors=(BUDGET, RECIPE, WIDTH, DATA, BATCH),
    settings=(
        Setting("budget_eighth", {"budget": "1/8"}),
        Setting("budget_quarter", {"budget": "1/4"}),
        Setting("budget_half", {"budget": "1/2"}),
        Setting("budget_double", {"budget": "2"}),
        Setting("decays_90", {"budget": "1/4", "recipe": "90 decays"}),
        Setting("rate_double", {"budget": "1/4", "recipe": "twice the rate"}),
        Setting("augmented", {"budget": "1/4", "recipe": "shifted, mirrored"}),
        Setting("width_half", {"budget": "1/4", "width": "1/2"}),
        Setting("width_double", {"budget": "1/4", "width": "2"}),
        Setting("batch_half", {"budget": "1/4", "batch": "1/2"}),
        Setting("batch_double", {"budget": "1/4", "batch": "2"}),
        Setting("cifar10_eighth", {"budget": "1/8", "data": "CIFAR-10"}),
        Setting("cifar10", {"budget": "1/4", "data": "CIFAR-10"}),
        Setting("garments_eighth", {"budget": "1/8", "data": "Fashion-MNIST"}),
        Setting("garments", {"budget": "1/4", "data": "Fashion-MNIST"}),
    ),
)
