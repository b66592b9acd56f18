"""Made-up differences of the settings of a robustness study, with unequal noise."""

import math
from collections.abc import Iterator

import numpy as np

SEEDS = 3  # of a setting; the first, the scale itself, has 6


def studies(
    k: int,
    count: int,
    ratio: float = 1,
    noisy: float = 0.25,
    skewness: float = 0,
    spread: float = 0,
    shift: float = 0,
) -> Iterator[list[np.ndarray]]:
    """Yield made-up studies: the differences of each setting, one per seed.

    Args:
        k: settings.
        count: studies.
        ratio: of the noise's variance in the short trainings to that in the others.
        noisy: the fraction of the settings, without the first, that are short trainings.
        skewness: of the noise, which then is gamma.
        spread: the standard deviation of the true effects, in standard errors of three seeds, by
            the mean variance of these settings.
        shift: of the last setting's effect, in its own standard errors.
    """
    draw = np.random.default_rng([k, int(ratio), int(100 * noisy), int(10 * skewness)])
    short = max(round(noisy * (k - 1)), 1)
    variances = np.array([1.0] + [ratio] * short + [1.0] * (k - 1 - short))
    error = math.sqrt(variances[1:].mean() / SEEDS)
    for _ in range(count):
        effects = spread * error * draw.normal(size=k)
        effects[-1] += shift * math.sqrt(variances[-1] / SEEDS)
        yield [
            effect + math.sqrt(variance) * _noise(draw, 2 * SEEDS if i == 0 else SEEDS, skewness)
            for i, (effect, variance) in enumerate(zip(effects, variances, strict=True))
        ]


def _noise(draw: np.random.Generator, n: int, skewness: float) -> np.ndarray:
    """Return n numbers of mean 0 and variance 1."""
    if not skewness:
        return draw.normal(size=n)
    shape = 4 / skewness**2
    return (draw.gamma(shape, size=n) - shape) / math.sqrt(shape)
