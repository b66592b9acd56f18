"""Do all settings have the same true effect? A parametric bootstrap for unequal variances.

(docstring follows)
"""

import math
from collections.abc import Sequence

import numpy as np

from sepablate.analysis.meta_analysis import cochran_q
from sepablate.analysis.statistics import EQUAL, Array

PRIOR = 1  # degrees of freedom that the variance of all settings adds to each one's own
DRAWS, SEED = 9_999, 0


def p_value(differences: Sequence[Array], draws: int = DRAWS, seed: int = SEED) -> float:
    """Return the p-value of "all settings have the same true effect".

    It is the same number for the same differences: the draws have a seed.

    Args:
        differences: of each setting, one per seed, at least one.
        draws: simulated studies.
        seed: of the draws.

    Returns:
        nan if no setting has two differences.
    """
    counts = np.array([len(each) for each in differences], np.float64)
    degrees = counts - 1
    if not degrees.any():
        return math.nan
    means = np.array([each.mean() for each in differences], np.float64)
    squares = np.array([((each - each.mean()) ** 2).sum() for each in differences], np.float64)
    squares = np.maximum(squares, degrees * EQUAL**2)
    generator = np.random.default_rng(seed)
    shape = (draws, len(counts))
    posterior = 2 * generator.standard_gamma((degrees + PRIOR) / 2, shape)  # chi^2
    variances = (degrees + PRIOR) * _moderated(squares, degrees) / posterior
    new_means = np.sqrt(variances / counts) * generator.standard_normal(shape)
    new_squares = variances * 2 * generator.standard_gamma(degrees / 2, shape)
    observed = cochran_q(means, _moderated(squares, degrees) / counts)
    simulated = cochran_q(new_means, _moderated(new_squares, degrees) / counts)
    return float((1 + (simulated >= observed).sum()) / (1 + draws))


def _moderated(squares: Array, degrees: Array) -> Array:
    """Return each setting's variance, with the pooled one as PRIOR further degrees of freedom.

    Args:
        squares: (..., k), sums of squares within the settings.
        degrees: (k,), of freedom.
    """
    pooled = squares.sum(-1, keepdims=True) / degrees.sum()
    return (squares + PRIOR * pooled) / (degrees + PRIOR)
