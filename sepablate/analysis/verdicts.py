"""The rule that turns the numbers of a report's claims into verdicts.

The rule, for the m claims of one report, each with its differences left - right paired by seed:

1. Two families of m tests: that a difference exists (paired t-test, two-sided) and that it is
   smaller than the margin declared before the runs (TOST). Holm adjusts each family, so that each
   has at most 5 % chance of any false word, however the claims depend on each other. A claim
   without a p-value still counts in m.
2. A claim ">" or "<" *holds* if its adjusted p < 0.05 and the mean has the claimed sign, is
   *contradicted* if p < 0.05 and the sign is opposite, is *equivalent* if not so and its adjusted
   TOST p < 0.05. A real difference smaller than the margin keeps its word; the report says so.
3. A claim "=" *holds* if its adjusted TOST p < 0.05, and is *contradicted* if the difference is
   beyond the margin, its test being against the nearer end of the margin in place of zero.
4. Anything else is *inconclusive*, and comes with the smallest true difference that this many seeds
   find with 80 % power, and the seeds that a difference as large as the margin needs; both at the
   level 0.05 / m, the strictest that Holm uses, and both take the observed spread for the true one.
   Fewer than two pairs, or differences that are all equal, are always inconclusive.
5. A diverged run has no score. Its seed is left out on both sides and named. Those left out are not
   a random choice, so the other seeds may speak against a variant that diverged, never for it, and
   never for equality: such a verdict becomes inconclusive.

The exact sign-flip p is reported beside and decides nothing: with 6 seeds it cannot go below 0.031
even before correction. The interval over seeds says what other initialisations and data orders
would give on these images; the one over test images, beside it, what other images would give.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sepablate.analysis import statistics
from sepablate.analysis.effects import Measured
from sepablate.analysis.statistics import LEVEL


@dataclass(frozen=True)
class Verdict:
    """The word on one claim among the `family` claims of a report, and what it rests on.

    within_margin: the adjusted TOST p < 0.05, whatever the word.
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
    """The verdicts on the claims of one report, by the rule above."""
    family = len(claims)
    adjusted = statistics.holm(np.array([each.p for each in claims]))
    equivalence = statistics.holm(np.array([each.p_equivalence for each in claims]))
    return [
        Verdict(
            measured=each,
            outcome=_outcome(each, float(p), float(q)),
            family=family,
            p_adjusted=float(p),
            p_equivalence_adjusted=float(q),
            within_margin=bool(q < LEVEL),
            detectable=each.deviation
            * statistics.detectable_effect(len(each.seeds), LEVEL / family),
            seeds_needed=statistics.seeds_needed(
                each.claim.margin / each.deviation, LEVEL / family
            ),
        )
        for each, p, q in zip(claims, adjusted, equivalence, strict=True)
    ]


def _outcome(measured: Measured, p: float, p_equivalence: float) -> str:
    """holds, contradicted, equivalent or inconclusive; nan is below no level."""
    claim = measured.claim
    different, equivalent = p < LEVEL, p_equivalence < LEVEL
    ahead = claim.left if measured.mean > 0 else claim.right
    favoured = {ahead} if different else {claim.left, claim.right}
    if not (different or equivalent) or favoured & {each.variant for each in measured.diverged}:
        return "inconclusive"
    claimed = {">": claim.left, "<": claim.right, "=": None}[claim.comparison]
    if different:
        return "holds" if ahead == claimed else "contradicted"
    return "holds" if claimed is None else "equivalent"
