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
    names,
    studies_with,
    variant,
    variants,
)
from sepablate.study.study import SPEED, Claim, Study
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
    "FOLDER",
    "INCEPTION_V3",
    "INCEPTION_V3_2016",
    "POINTWISE_FIRST",
    "SPEED",
    "TASK_SCORES",
    "XCEPTION",
    "Claim",
    "LayerStudy",
    "Study",
    "Variant",
    "check_name",
    "layer_names",
    "load",
    "load_layers",
    "names",
    "studies_with",
    "variant",
    "variants",
]
