"""Statistics of paired differences, at the size of an ablation: a few seeds.

All functions work along the last axis: (..., n) differences give (...) numbers, or one number.
Where a number is undefined they return nan: a single difference, or differences that are all equal,
have no spread.

scipy has the distributions, but neither Holm's method nor equivalence tests, and its t-test neither
tests against a margin nor returns nan for differences that are equal up to rounding.
"""

import bisect
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]

LEVEL = 0.05
POWER = 0.8
EQUAL = 1e-12  # differences of fractions this close differ by rounding
EXACT_UP_TO = 16
DRAWS = 100_000
MOST_SEEDS = 1_000_000
SKEWED = 0.01  # how often normal differences are called skewed


class Interval(NamedTuple):
    """A mean and the interval around it."""

    mean: Array
    low: Array
    high: Array


def deviation(differences: Array) -> Array:
    """Return the standard deviation (n - 1); nan for fewer than two differences or equal ones."""
    if differences.shape[-1] < 2:
        return np.full(differences.shape[:-1], math.nan)
    constant = np.ptp(differences, axis=-1) <= EQUAL
    return np.where(constant, math.nan, differences.std(axis=-1, ddof=1))


def interval(differences: Array, confidence: float = 0.95) -> Interval:
    """Return Student's t interval of the mean."""
    n = differences.shape[-1]
    mean = _mean(differences)
    half = stats.t.isf((1 - confidence) / 2, max(n - 1, 1)) * _error(differences)
    return Interval(mean, mean - half, mean + half)


def cohens_dz(differences: Array) -> Array:
    """Return the standardised effect of a paired design: mean over standard deviation."""
    return _mean(differences) / deviation(differences)


def t_test(differences: Array) -> Array:
    """Return the two-sided p-value of "the mean is zero": the paired t-test."""
    t = _mean(differences) / _error(differences)
    return 2 * stats.t.sf(np.abs(t), differences.shape[-1] - 1)


def margin_test(differences: Array, margin: float) -> Array:
    """Return the two-sided p-value of "the mean lies within +-margin".

    It is that of the t-test against the nearer end; 1 where the observed mean lies within.
    """
    mean = _mean(differences)
    t = (np.abs(mean) - margin) / _error(differences)
    return np.where(t > 0, 2 * stats.t.sf(t, differences.shape[-1] - 1), np.where(t <= 0, 1.0, t))


def tost(differences: Array, margin: float) -> Array:
    """Return the p-value of "the mean lies outside +-margin": the larger of two t-tests (TOST)."""
    mean, error = _mean(differences), _error(differences)
    t = (margin - np.abs(mean)) / error
    return stats.t.sf(t, differences.shape[-1] - 1)


def sign_flip(differences: Array, generator: np.random.Generator, draws: int = DRAWS) -> float:
    """Return the two-sided p-value of "the differences are symmetric about zero".

    It is exact over all 2^n signs up to n = 16, so never below 2 / 2^n. (scipy's permutation_test
    doubles the smaller tail, which is another number for random signs.)

    Args:
        differences: (n,).
        generator: draws the signs beyond n = 16.
        draws: how many random signs are then tried.
    """
    n = len(differences)
    if n == 0:
        return math.nan
    exact = n <= EXACT_UP_TO
    if exact:
        signs = np.array(list(itertools.product((1, -1), repeat=n)))
    else:
        signs = generator.choice((1, -1), size=(draws, n))
    observed = abs(differences.sum())
    tolerance = EQUAL * np.abs(differences).sum()
    extreme = int((np.abs(signs @ differences) >= observed - tolerance).sum())
    return extreme / len(signs) if exact else (extreme + 1) / (draws + 1)


def skewness(differences: Array) -> Array:
    """Return the third standardised moment; nan where `deviation` is."""
    centred = differences - _mean(differences)[..., None]
    spread = deviation(differences) * math.sqrt(1 - 1 / max(differences.shape[-1], 2))
    return (centred**3).sum(axis=-1) / max(differences.shape[-1], 1) / spread**3


def clearly_skewed(differences: Array) -> NDArray[np.bool_]:
    """Return whether the skewness is beyond that of 99 % of normal samples of this size.

    With 3 or 4 differences that says next to nothing; of 6 lognormal ones it finds one in six.
    """
    return np.abs(skewness(differences)) > _critical_skewness(differences.shape[-1])


@functools.cache
def _critical_skewness(n: int) -> float:
    """Return the |skewness| that 1 % of normal samples exceed; from n = 64 on that of the limit."""
    if n < 3:
        return math.inf
    if n >= 64:
        variance = 6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3))  # of normal samples
        return float(stats.norm.isf(SKEWED / 2) * math.sqrt(variance))
    normal = np.random.default_rng(0).normal(size=(DRAWS, n))
    return float(np.quantile(np.abs(skewness(normal)), 1 - SKEWED))


def smallest_sign_flip(n: int) -> float:
    """Return the smallest p-value that `sign_flip` can give for n differences."""
    return 2.0 ** (1 - n) if n <= EXACT_UP_TO else 1 / (DRAWS + 1)


def holm(p: Array) -> Array:
    """Return Holm's adjusted p-values of a family; its tests may depend on each other.

    nan counts as a member of the family with p = 1, and stays nan.
    """
    known = np.where(np.isnan(p), 1.0, p)
    order = np.argsort(known, axis=-1, kind="stable")
    factors = np.arange(p.shape[-1], 0, -1)
    rising = np.maximum.accumulate(np.take_along_axis(known, order, -1) * factors, axis=-1)
    adjusted = np.take_along_axis(np.minimum(rising, 1), np.argsort(order, axis=-1), -1)
    return np.where(np.isnan(p), math.nan, adjusted)


def power(effect: float, n: int, level: float = LEVEL) -> float:
    """Return the power of a two-sided paired t-test of n seeds for a true standardised effect."""
    critical, shift = stats.t.isf(level / 2, n - 1), abs(effect) * math.sqrt(n)
    wrong_sign = stats.nct.cdf(-critical, n - 1, shift)  # nan where it is below 1e-13
    return float(stats.nct.sf(critical, n - 1, shift) + np.nan_to_num(wrong_sign))


@functools.cache
def detectable_effect(n: int, level: float = LEVEL, wanted: float = POWER) -> float:
    """Return the smallest true standardised effect that n seeds find with the wanted power."""
    if n < 2:
        return math.nan
    high = 1.0
    while power(high, n, level) < wanted:
        high *= 2
    return float(optimize.brentq(lambda x: power(x, n, level) - wanted, 0, high, xtol=1e-13))


def seeds_needed(effect: float, level: float = LEVEL, wanted: float = POWER) -> int | None:
    """Return the fewest seeds that find a true standardised effect with the wanted power.

    None if a million would not do, as for an effect of zero, or if the effect is nan.
    """
    if math.isnan(effect):
        return None
    choices = range(2, MOST_SEEDS + 1)
    index = bisect.bisect_left(choices, wanted, key=lambda n: power(effect, n, level))
    return choices[index] if index < len(choices) else None


def interval_over_images(left: Array, right: Array) -> Interval:
    """Return the 95 % interval of the difference in mean score of two variants, over test images.

    The differences are averaged over the seeds, image by image; the t interval of these (images,)
    means follows. It holds for these trained networks on further images of the same kind, while
    the interval over seeds holds for further trainings on these test images.

    Args:
        left: (seeds, images), the score of each image: 0 or 1 for its class, or its average
            precision.
        right: the same of the other variant, paired in both axes.
    """
    return interval((left - right).mean(axis=0))


def bootstrap_interval(difference: float, left: Array, right: Array) -> Interval:
    """Return the 95 % interval of the difference of two variants, over test images.

    For a score that is no mean over images: normal, with the standard deviation of the resampled
    differences, each averaged over the seeds. It holds as `interval_over_images` does.

    Args:
        difference: of all test images.
        left: (seeds, resamples), the score of as many images, drawn with replacement.
        right: the same of the other variant, of the same draws.
    """
    deviation = float((left - right).mean(axis=0).std(ddof=1))
    half = float(stats.norm.isf((1 - 0.95) / 2)) * deviation
    return Interval(np.array(difference), np.array(difference - half), np.array(difference + half))


def _mean(differences: Array) -> Array:
    if differences.shape[-1] == 0:
        return np.full(differences.shape[:-1], math.nan)
    return differences.mean(axis=-1)


def _error(differences: Array) -> Array:
    """Return the standard error of the mean."""
    return deviation(differences) / math.sqrt(max(differences.shape[-1], 1))
