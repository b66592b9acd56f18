"""Whether all settings have the same true effect: a bootstrap test for unequal variances.

The statistic is Cochran's Q with a variance for each setting. Three seeds tell little of it, so it
is moderated as by Smyth (2004): the variance pooled over the settings counts as PRIOR further
degrees of freedom. The p-value is that of a parametric bootstrap, as of Krishnamoorthy, Lu and
Mathew (2007, CSDA 51): studies without an effect are drawn, each with variances drawn from the
scaled inverse chi^2 that the moderated ones stand for, and their Q is compared with the observed.

It was chosen by simulation of one setting of six seeds and 7, 11 or 15 of three, of which one, a
quarter, a half or most have the variance 1, 4 or 16 of the others'. Level at 5 %, over all of them
(4,000 studies each), for normal noise and skewness 0.5, and for skewness 1; and power of k = 12
where the true effects spread by one and two standard errors of a setting:

                                     level    skew 1       power of 1, of 2
    F, one pooled variance            4-18      5-19          43-56, 93-96
    Welch 1951                       10-29     11-32          45-86, 86-99
    Alexander and Govern 1994         7-13      8-17          33-78, 80-99
    Brown and Forsythe 1974           2-10      2-10          22-31, 66-88
    the same, Mehrotra 1997           2-8       1-8           17-25, 58-84
    Krishnamoorthy, Lu and Mathew     2-5       3-6           13-44, 48-91
    this test                         3-6       3-7           33-48, 87-95

The first three do not hold their level. Brown and Forsythe's test weights all settings alike, and
a single noisy one drowns the rest; the plain bootstrap weights by variances of two degrees of
freedom, and finds little where variances are equal. PRIOR = 1 is between; with 2 the level is the
same and the power lower by 1 to 6 points. The worst level is 6.2 % (one noisy setting of eight),
with skewness 1 it is 7.1 % (two of eight). A test by sign flips about the common mean has up to 7 %
with normal noise, and misses a single setting that differs more often (57 % found, not 94 %).

scipy has only Alexander and Govern's test; statsmodels, which the tests use, has Welch's and Brown
and Forsythe's.
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
