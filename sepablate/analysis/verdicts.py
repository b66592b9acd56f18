"""The rule that turns the numbers of a report's claims into verdicts.

The rule, for the m claims of one report, each with its differences left - right paired by seed:

1. Two families of m tests: that a difference exists (paired t-test, two-sided), and that it is
   smaller than the equivalence margin specified before the runs (TOST). Holm's method adjusts each
   family: if the differences are normal, the family-wise error rate is at most 5 %, under any
   dependence between the claims. A claim without a p-value still counts in m.
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

The exact sign-flip permutation test is only reported: with 6 seeds its p cannot go below 0.031 even
before correction. The interval over seeds covers other initialisations and data orders on
these images; the one over test images covers other images.
"""

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
    """

    measured: Measured
    outcome: str
    family: int
    p_adjusted: float
    p_equivalence_adjusted: float
    within_margin: bool
    detectable: float
    seeds_needed: int | None


def decide(claims: Sequence[Measured]) -> list[Verdict]:
    """Return the verdicts on the claims of one report, by the rule above."""
    adjusted = statistics.holm(np.array([claim.p for claim in claims]))
    equivalence = statistics.holm(np.array([claim.p_equivalence for claim in claims]))
    return [
        _verdict(claim, len(claims), float(p), float(p_equivalence))
        for claim, p, p_equivalence in zip(claims, adjusted, equivalence, strict=True)
    ]


def _verdict(measured: Measured, family: int, p: float, p_equivalence: float) -> Verdict:
    n, level = len(measured.seeds), LEVEL / family
    return Verdict(
        measured=measured,
        outcome=_outcome(measured, p, p_equivalence),
        family=family,
        p_adjusted=p,
        p_equivalence_adjusted=p_equivalence,
        within_margin=p_equivalence < LEVEL,
        detectable=measured.deviation * statistics.detectable_effect(n, level),
        seeds_needed=statistics.seeds_needed(measured.claim.margin / measured.deviation, level),
    )


def _outcome(measured: Measured, p: float, p_equivalence: float) -> str:
    """Return holds, contradicted, equivalent or inconclusive; the last for p-values of nan."""
    claim = measured.claim
    different, equivalent = p < LEVEL, p_equivalence < LEVEL
    observed_winner = claim.left if measured.mean > 0 else claim.right
    favoured = {observed_winner} if different else {claim.left, claim.right}
    diverged = {run.variant for run in measured.diverged}
    if not (different or equivalent) or favoured & diverged:
        return "inconclusive"
    claimed_winner = {">": claim.left, "<": claim.right, "=": None}[claim.comparison]
    if different:
        return "holds" if observed_winner == claimed_winner else "contradicted"
    return "holds" if claimed_winner is None else "equivalent"
