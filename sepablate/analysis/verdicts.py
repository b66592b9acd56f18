"""The rule that turns the numbers of a report's claims into verdicts.

The rule, for the m claims of one report, each with its differences left - right paired by seed:

1. Two families of m tests: that a difference exists (paired t-test, two-sided) and that it is
   smaller than the margin declared before the runs (TOST). Holm adjusts each family, so that each
   has at most 5 % chance of any false verdict, however the claims depend on each other. A claim
   without a p-value still counts in m.
2. A claim ">" or "<" *holds* if its adjusted p < 0.05 and the mean has the claimed sign, is
   *contradicted* if p < 0.05 and the sign is opposite, is *equivalent* if not so and its adjusted
   TOST p < 0.05. A real difference smaller than the margin keeps its verdict; the report says so.
3. A claim "=" *holds* if its adjusted TOST p < 0.05, and is *contradicted* if the difference is
   beyond the margin, its test being against the nearer end of the margin in place of zero.
4. Anything else is *inconclusive*, and comes with the smallest true difference that this many seeds
   find with 80 % power, and the seeds that a difference as large as the margin needs; both at the
   level 0.05 / m, the strictest that Holm uses, and both take the observed spread for the true one.
   Fewer than two pairs, or differences that are all equal, are always inconclusive.
5. A diverged run has no score. Its seed is left out on both sides and named. Those left out are not
   a random choice, so the other seeds can be evidence against a variant that diverged, but neither
   for it nor for equality: such a verdict becomes inconclusive.

The exact sign-flip p is reported too and decides nothing: with 6 seeds it cannot go below 0.031
even before correction. The interval over seeds covers other initialisations and data orders on
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
        p_adjusted: Holm's p that a difference exists.
        p_equivalence_adjusted: Holm's p of the equivalence test (TOST).
        within_margin: whether that is below 0.05, whatever the outcome.
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
    """Return holds, contradicted, equivalent or inconclusive; nan is below no level."""
    claim = measured.claim
    different, equivalent = p < LEVEL, p_equivalence < LEVEL
    ahead = claim.left if measured.mean > 0 else claim.right
    favoured = {ahead} if different else {claim.left, claim.right}
    diverged = {run.variant for run in measured.diverged}
    if not (different or equivalent) or favoured & diverged:
        return "inconclusive"
    claimed = {">": claim.left, "<": claim.right, "=": None}[claim.comparison]
    if different:
        return "holds" if ahead == claimed else "contradicted"
    return "holds" if claimed is None else "equivalent"
