"""The rule that turns the numbers of a report's claims into verdicts.

The rule, for the m claims of one report, each with its differences left - right paired by seed:

1. Two families of m tests: that a difference exists (paired t-test, two-sided), and that it is
   smaller than the equivalence margin specified before the runs (TOST). Holm's method adjusts each
   family, under any dependence between the claims. A claim without a p-value still counts in m.
   The family-wise error rate is at most 5 % if the differences are normal, and only then: for 7
   claims against one baseline, 6 seeds and no true difference, simulation gives 4.6 % under normal
   noise, 9.5 % where only the baseline's noise is lognormal, and 1.3 % where all noise is, since
   differences of two such scores are symmetric (`tests/unit/test_marks.py`).
2. A claim ">" or "<" *holds* if its adjusted p < 0.05 and the mean has the claimed sign. It is
   *contradicted* if its adjusted p < 0.05 and the sign is opposite. Otherwise it is *equivalent* if
   its adjusted TOST p < 0.05. A real difference smaller than the margin keeps its verdict; the
   report says so.
3. A claim "=" *holds* if its adjusted TOST p < 0.05. It is *contradicted* if the difference is
   significantly beyond the margin: it is tested against the nearer bound of the margin, not zero.
4. Anything else is *inconclusive*. The report then gives the minimum detectable difference of these
   seeds with 80 % power, and the number of seeds that a difference as large as the margin needs.
   Both are at the level 0.05 / m, the strictest of Holm's method, and both plug in the sample
   standard deviation. Fewer than two pairs, or zero variance, are always inconclusive.
5. A diverged run has no score. Its seed is left out on both sides and named. Such seeds are not a
   random choice: a verdict that favours a variant with a diverged run, or equality, becomes
   inconclusive.

The exact sign-flip permutation test, which assumes symmetry instead of normality, decides nothing:
with 6 seeds its p cannot go below 0.031 even before correction. But a verdict is marked as doubtful
where the t-test's assumption is in doubt:

* The two tests disagree after Holm's correction. That the sign-flip test finds nothing counts only
  if its p is not the smallest that n seeds can give. A claim "=" is tested against the margin; the
  sign-flip test is not, so there the two cannot disagree.
* The differences are clearly skewed: |skewness| is beyond that of 99 % of normal samples of n.

The interval over seeds covers other initialisations and data orders on these images; the one over
test images covers other images. The corrected interval is Student's t at the level 0.05 / m, for
all claims of a report at once. It is a little wider than Holm's tests, which are stepwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sepablate.analysis import statistics
from sepablate.analysis.effects import Measured
from sepablate.analysis.statistics import LEVEL


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim of a report, and the numbers that decide it.

    Args:
        measured: the numbers of the claim.
        outcome: holds, contradicted, equivalent or inconclusive.
        family: the number of claims in the report.
        p_adjusted: Holm-adjusted p of the difference test.
        p_equivalence_adjusted: Holm-adjusted p of the equivalence test (TOST).
        within_margin: whether `p_equivalence_adjusted` < 0.05, whatever the outcome.
        detectable: smallest true difference, as a fraction, that these seeds find with 80 % power.
        seeds_needed: for a true difference as large as the margin.
        corrected_low: the lower end of the interval corrected for all claims of the report.
        corrected_high: its upper end.
        p_sign_flip_adjusted: Holm-adjusted p of the sign-flip test.
        tests_disagree: whether t-test and sign-flip test do.
        skewed: whether the differences clearly are.
    """

    measured: Measured
    outcome: str
    family: int
    p_adjusted: float
    p_equivalence_adjusted: float
    within_margin: bool
    detectable: float
    seeds_needed: int | None
    corrected_low: float
    corrected_high: float
    p_sign_flip_adjusted: float
    tests_disagree: bool
    skewed: bool

    @property
    def doubtful(self) -> bool:
        """Whether the differences may not be as the t-test assumes."""
        return self.tests_disagree or self.skewed


def decide(claims: Sequence[Measured]) -> list[Verdict]:
    """Return the verdicts on the claims of one report, by the rule above."""
    adjusted = statistics.holm(np.array([claim.p for claim in claims]))
    equivalence = statistics.holm(np.array([claim.p_equivalence for claim in claims]))
    sign_flip = statistics.holm(np.array([claim.p_sign_flip for claim in claims]))
    return [
        _verdict(claim, len(claims), float(p), float(p_equivalence), float(p_sign_flip))
        for claim, p, p_equivalence, p_sign_flip in zip(
            claims, adjusted, equivalence, sign_flip, strict=True
        )
    ]


def _verdict(
    measured: Measured, family: int, p: float, p_equivalence: float, p_sign_flip: float
) -> Verdict:
    n, level = len(measured.seeds), LEVEL / family
    differences = np.array(measured.differences)
    corrected = statistics.interval(differences, 1 - level)
    return Verdict(
        measured=measured,
        outcome=_outcome(measured, p, p_equivalence),
        family=family,
        p_adjusted=p,
        p_equivalence_adjusted=p_equivalence,
        within_margin=p_equivalence < LEVEL,
        detectable=measured.deviation * statistics.detectable_effect(n, level),
        seeds_needed=statistics.seeds_needed(measured.claim.margin / measured.deviation, level),
        corrected_low=float(corrected.low),
        corrected_high=float(corrected.high),
        p_sign_flip_adjusted=p_sign_flip,
        tests_disagree=_tests_disagree(measured, p, p_sign_flip),
        skewed=bool(statistics.clearly_skewed(differences)),
    )


def _tests_disagree(measured: Measured, p: float, p_sign_flip: float) -> bool:
    """Return whether t-test and sign-flip test disagree, as far as n allows."""
    if measured.claim.comparison == "=" or math.isnan(p) or math.isnan(p_sign_flip):
        return False
    smallest = statistics.smallest_sign_flip(len(measured.seeds))
    at_its_smallest = measured.p_sign_flip <= smallest * (1 + 1e-9)
    if p < LEVEL:
        return p_sign_flip >= LEVEL and not at_its_smallest
    return p_sign_flip < LEVEL


def _outcome(measured: Measured, p: float, p_equivalence: float) -> str:
    """Return holds, contradicted, equivalent or inconclusive; the last for p-values of nan."""
    claim = measured.claim
    different, equivalent = p < LEVEL, p_equivalence < LEVEL  # of "=": beyond the margin
    ahead = claim.left if measured.mean > 0 else claim.right
    favoured = {ahead} if different else {claim.left, claim.right}
    diverged = {run.variant for run in measured.diverged}
    if not (different or equivalent) or favoured & diverged:
        return "inconclusive"
    if claim.comparison == "=":
        return "contradicted" if different else "holds"
    if not different:
        return "equivalent"
    claimed = claim.left if claim.comparison == ">" else claim.right
    return "holds" if ahead == claimed else "contradicted"
