"""Studies: variants to compare, and the claims that a paper makes about them.

Data only. This package imports neither torch nor anything else of sepablate, so that a study file
loads in milliseconds and never decides how it is trained.
"""

from sepablate.study.layer_study import LayerStudy
from sepablate.study.registry import (
    FOLDER,
    layer_names,
    load,
    load_layers,
    load_robustness,
    names,
    robustness_claims,
    robustness_names,
    robustness_variants,
    setting,
    studies_with,
    variant,
    variants,
)
from sepablate.study.robustness import BASE, Change, Factor, RobustnessStudy, Setting, Times
from sepablate.study.study import PER_COST, SPEED, Claim, Study, compared_variants
from sepablate.study.variant import (
    INCEPTION_V3,
    INCEPTION_V3_2016,
    POINTWISE_FIRST,
    TASK_SCORES,
    XCEPTION,
    Variant,
    check_name,
)

__all__ = [
    "BASE",
    "FOLDER",
    "INCEPTION_V3",
    "INCEPTION_V3_2016",
    "PER_COST",
    "POINTWISE_FIRST",
    "SPEED",
    "TASK_SCORES",
    "XCEPTION",
    "Change",
    "Claim",
    "Factor",
    "LayerStudy",
    "RobustnessStudy",
    "Setting",
    "Study",
    "Times",
    "Variant",
    "check_name",
    "compared_variants",
    "layer_names",
    "load",
    "load_layers",
    "load_robustness",
    "names",
    "robustness_claims",
    "robustness_names",
    "robustness_variants",
    "setting",
    "studies_with",
    "variant",
    "variants",
]
