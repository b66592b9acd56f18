"""How far a claim's verdict carries: its effects over settings pooled, and the rule of the outcome.

The rule, for one claim and the k settings that have at least one pair of seeds:

1. A claim *carries* if the 95 % prediction interval of a new setting's measured effect excludes
   zero on the claimed side, and is *reversed* if it does so on the other side.
2. Otherwise it *depends* if the settings differ by more than their seeds explain (p < 0.05 of "all
   settings have the same true effect", by `equal_effects`). The factor that explains most of tau^2
   is named; tau^2 and the regression on a factor have the variances of `meta_analysis`.
3. Else it is *open*: neither is shown.
4. A diverged run has no score; its seed is left out on both sides. An outcome that favours a
   variant of which a run diverged in some setting is *open*.

Each claim is judged by itself: without an effect, a claim carries in at most 2.5 % of studies.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from sepablate.analysis import equal_effects, meta_analysis, statistics
from sepablate.analysis.setting_effects import ClaimEffects, SettingEffect, differences
from sepablate.analysis.statistics import LEVEL, Array
from sepablate.errors import UserError
from sepablate.paper import xception as paper
from sepablate.study import BASE, Claim, RobustnessStudy

OUTCOMES = ("carries", "reversed", "depends", "open")


@dataclass(frozen=True)
class Estimate:
    """Settings pooled; the fields are those of `meta_analysis.Pooled`, as numbers.

    p_equal is of "all settings have the same true effect", by `equal_effects`.
    """

    k: int
    mean: float
    low: float
    high: float
    tau: float
    i_squared: float
    p_equal: float
    new_low: float
    new_high: float
    true_low: float
    true_high: float


@dataclass(frozen=True)
class FactorShare:
    """How much of tau^2 a factor explains, 0 to 1, nan if tau^2 is 0; and the p of its F test.

    Both are nan for a factor with too many levels for the settings.
    """

    factor: str
    label: str
    share: float
    p: float


@dataclass(frozen=True)
class LeftOut:
    """The estimate without one setting."""

    setting: str
    mean: float
    new_low: float
    new_high: float
    outcome: str


@dataclass(frozen=True)
class Trend:
    """The effect against the budget, a line over log2 of the images seen.

    Args:
        images: seen in each setting that differs in nothing but the budget, rising.
        slope: of the effect, per doubling; with its 95 % interval.
        at_paper_low, at_paper_high: where the line puts the true effect at the paper's budget.
    """

    images: tuple[int, ...]
    slope: float
    slope_low: float
    slope_high: float
    at_paper_low: float
    at_paper_high: float


@dataclass(frozen=True)
class Carrying:
    """How far the verdict on one claim carries.

    Args:
        effects: of the claim, by setting.
        means: of each setting, with the 95 % t interval of its own seeds: (mean, low, high).
        estimate: over the settings.
        outcome: carries, reversed, depends or open.
        shares: of the factors, the largest first.
        left_out: the estimate without each setting.
        trend: None with fewer than three budgets of different lengths.
        paper: the paper's own difference, None if it prints none.
    """

    effects: ClaimEffects
    means: tuple[tuple[float, float, float], ...]
    estimate: Estimate
    outcome: str
    shares: tuple[FactorShare, ...]
    left_out: tuple[LeftOut, ...]
    trend: Trend | None
    paper: float | None


def judge(effects: ClaimEffects, declared: RobustnessStudy) -> Carrying:
    """Return how far the verdict on a claim carries; UserError with fewer than three settings."""
    known = [each for each in effects.settings if each.differences]
    if len(known) < meta_analysis.FEWEST:
        raise UserError(f"claim on {effects.claim.left}: fewer than three settings have a pair")
    estimate, claim = _estimate(known), effects.claim
    diverged = {name for each in effects.settings for name in each.diverged}
    return Carrying(
        effects=effects,
        means=tuple(_interval(each) for each in effects.settings),
        estimate=estimate,
        outcome=outcome(claim, estimate, diverged),
        shares=_shares(known, estimate, declared),
        left_out=_left_out(known, claim, diverged),
        trend=_trend(known, declared),
        paper=paper.DIFFERENCES.get((claim.left, claim.right, claim.metric)),
    )


def outcome(claim: Claim, estimate: Estimate, diverged: set[str]) -> str:
    """Return carries, reversed, depends or open, by the rule above."""
    if estimate.new_low > 0 or estimate.new_high < 0:
        winner = claim.left if estimate.new_low > 0 else claim.right
        claimed = claim.left if claim.comparison == ">" else claim.right
        if winner in diverged:
            return "open"
        return "carries" if winner == claimed else "reversed"
    return "depends" if estimate.p_equal < LEVEL else "open"


def arrays(settings: list[SettingEffect]) -> tuple[Array, Array, float]:
    """Return effects, their variances, and the variance of a new setting's.

    A new setting is thought of as measured with the fewest seeds of these.
    """
    variance, degrees = meta_analysis.pooled_variance([differences(each) for each in settings])
    counts = np.array([len(each.differences) for each in settings], np.float64)
    variance = max(variance, statistics.EQUAL**2) if degrees else math.nan
    means = np.array([differences(each).mean() for each in settings], np.float64)
    return means, variance / counts, variance / float(counts.min())


def design(settings: list[SettingEffect], declared: RobustnessStudy, name: str) -> Array:
    """Return the columns by which a factor enters a regression, after a first column of ones.

    Levels that are all numbers give one column, their log2; others a column for each but the base.
    """
    levels = [each.levels[name] for each in settings]
    numbers = [_number(level) for level in levels]
    if all(number is not None for number in numbers):
        columns = [[math.log2(number) for number in numbers if number is not None]]
    else:
        others = [level for level in dict.fromkeys(levels) if level != declared.factor(name).base]
        columns = [[float(level == other) for level in levels] for other in others]
    return np.array([np.ones(len(levels)), *columns], np.float64).T


def _number(level: str) -> Fraction | None:
    try:
        number = Fraction(level)
    except ValueError:
        return None
    return number if number > 0 else None


def _interval(effect: SettingEffect) -> tuple[float, float, float]:
    mean, low, high = statistics.interval(differences(effect))
    return float(mean), float(low), float(high)


def _estimate(settings: list[SettingEffect]) -> Estimate:
    effects, variances, new_variance = arrays(settings)
    pooled = meta_analysis.pool(effects, variances, np.asarray(new_variance))
    names = Estimate.__dataclass_fields__.keys() - {"k", "p_equal"}
    numbers = {name: float(getattr(pooled, name)) for name in names}
    p_equal = equal_effects.p_value([differences(each) for each in settings])
    return Estimate(k=pooled.k, p_equal=p_equal, **numbers)


def _shares(
    settings: list[SettingEffect], estimate: Estimate, declared: RobustnessStudy
) -> tuple[FactorShare, ...]:
    effects, variances, _ = arrays(settings)
    shares = []
    for factor in declared.factors:
        columns = design(settings, declared, factor.name)
        if len({each.levels[factor.name] for each in settings}) < 2:
            continue
        share = p = math.nan
        if columns.shape[1] <= len(settings) - 2:
            fit = meta_analysis.regress(effects, variances, columns)
            share = float(meta_analysis.explained(np.asarray(estimate.tau**2), fit.tau_squared))
            p = float(fit.p)
        shares.append(FactorShare(factor.name, factor.label, share, p))
    return tuple(sorted(shares, key=lambda each: -np.nan_to_num(each.share, nan=-1.0)))


def _left_out(
    settings: list[SettingEffect], claim: Claim, diverged: set[str]
) -> tuple[LeftOut, ...]:
    if len(settings) <= meta_analysis.FEWEST:
        return ()
    rows = []
    for left_out in settings:
        rest = _estimate([each for each in settings if each is not left_out])
        word = outcome(claim, rest, diverged)
        rows.append(LeftOut(left_out.setting, rest.mean, rest.new_low, rest.new_high, word))
    return tuple(rows)


def on_budget_line(settings: list[SettingEffect], declared: RobustnessStudy) -> list[SettingEffect]:
    """Return the settings that differ from the scale in nothing but the budget, by images seen."""
    base = declared.levels(None)
    alike = [
        each
        for each in settings
        if each.setting == BASE
        or all(each.levels[name] == base[name] for name in base if name != declared.budget)
    ]
    return sorted(alike, key=lambda each: each.images_seen)


def _trend(settings: list[SettingEffect], declared: RobustnessStudy) -> Trend | None:
    line = on_budget_line(settings, declared)
    if len({each.images_seen for each in line}) < meta_analysis.FEWEST:
        return None
    variances = {
        each.setting: v for each, v in zip(settings, arrays(settings)[1], strict=True)
    }  # of all settings: a line of four has few degrees of freedom of its own
    effects = np.array([differences(each).mean() for each in line], np.float64)
    noise = np.array([variances[each.setting] for each in line], np.float64)
    images = np.array([each.images_seen for each in line], np.float64)
    fit = meta_analysis.regress(effects, noise, np.stack([np.ones(len(line)), np.log2(images)], 1))
    low, high = meta_analysis.predict(fit, np.array([1.0, math.log2(paper.IMAGES_SEEN)]), len(line))
    slope, half = meta_analysis.coefficient(fit, 1, len(line))
    return Trend(
        images=tuple(each.images_seen for each in line),
        slope=slope,
        slope_low=slope - half,
        slope_high=slope + half,
        at_paper_low=float(low),
        at_paper_high=float(high),
    )
