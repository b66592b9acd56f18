"""The numbers of made-up claims."""

import math

import numpy as np

from sepablate.analysis.effects import Measured, paired_effect
from sepablate.study import Claim


def measured(
    differences, comparison=">", margin=0.005, diverged=(), below_published=math.nan
) -> Measured:
    claim = Claim("a", comparison, "b", "accuracy", margin, "4.6", "a beats b")
    d = np.array(differences, float)
    return Measured(
        study="s", dataset="toys", claim=claim, left_label="A", right_label="B",
        seeds=tuple(range(len(d))), differences=tuple(d), diverged=diverged, images_low=math.nan,
        images_high=math.nan, below_published=below_published, **paired_effect(claim, d),
    )  # fmt: skip
