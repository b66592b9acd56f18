"""Verdicts in words, with every number that an honest sentence needs."""

import math

from sepablate.analysis.statistics import LEVEL
from sepablate.analysis.summary_table import markdown, percent, with_interval
from sepablate.analysis.verdicts import Verdict

METRICS = {
    "accuracy": "final test accuracy",
    "map_100": "final test MAP@100",
    "speed": "mean validation score over the curve",
}
WORDS = {
    "holds": "The claim holds here.",
    "contradicted": "The claim is contradicted here.",
    "equivalent": "The two are equivalent here: the difference claimed is smaller than the margin.",
    "inconclusive": "This cannot be told apart from no difference.",
}
EQUALITY_OPEN = "The difference is shown neither to be within the margin nor to be beyond it."
SCORECARD = (
    "Claim",
    "Section",
    "Measured",
    "Difference (points)",
    "n",
    "Adjusted p",
    "Verdict",
)


def scorecard(verdicts: list[Verdict]) -> str:
    """One line per claim of the report."""
    rows = [
        (
            capital(each.measured.claim.statement),
            capital(each.measured.claim.section),
            METRICS[each.measured.claim.metric],
            difference(each),
            str(len(each.measured.seeds)),
            probability(each.p_adjusted),
            f"**{each.outcome}**" + " \\*" * bool(each.measured.diverged),
        )
        for each in verdicts
    ]
    return markdown(SCORECARD, rows)


def sentence(verdict: Verdict) -> str:
    """What the runs say of one claim."""
    measured, claim = verdict.measured, verdict.measured.claim
    return " ".join(
        filter(
            None,
            [
                f"*{capital(claim.statement)}* ({place(claim.section)}).",
                f"At this scale (n = {len(measured.seeds)} paired seeds), the difference in "
                f"{METRICS[claim.metric]}, {measured.left_label} minus {measured.right_label}, is "
                f"{difference(verdict)} points (95 % interval over seeds; {_beside(verdict)}).",
                _diverged(verdict),
                _word(verdict),
            ],
        )
    )


def place(section: str) -> str:
    """Where a claim stands: "section 4.6"; or "table 4", which needs no such word."""
    return f"section {section}" if section[0].isdigit() else section


def difference(verdict: Verdict) -> str:
    """The mean difference and its interval, in points."""
    measured = verdict.measured
    return with_interval(measured.mean, measured.low, measured.high, sign="+")


def probability(p: float) -> str:
    """A p-value to three decimals; – for nan."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _beside(verdict: Verdict) -> str:
    measured = verdict.measured
    parts = [
        f"adjusted p {probability(verdict.p_adjusted)}",
        f"exact sign-flip p {probability(measured.p_sign_flip)}",
        f"adjusted equivalence p {probability(verdict.p_equivalence_adjusted)} "
        f"for ±{percent(measured.claim.margin)} points",
    ]
    if not math.isnan(measured.images_low):
        low, high = percent(measured.images_low, "+"), percent(measured.images_high, "+")
        parts.insert(0, f"over test images [{low}, {high}]")
    return "; ".join(parts)


def _diverged(verdict: Verdict) -> str:
    lost = verdict.measured.diverged
    if not lost:
        return ""
    named = ", ".join(f"seed {e.seed} of {e.label} diverged at step {e.step}" for e in lost)
    return (
        f"{capital(named)}: left out on both sides, and the other seeds cannot speak "
        f"for a variant that diverged."
    )


def _word(verdict: Verdict) -> str:
    if math.isnan(verdict.measured.deviation):
        return "No verdict: fewer than two pairs, or all differences equal."
    if verdict.outcome != "inconclusive":
        return WORDS[verdict.outcome] + _caveats(verdict)
    if verdict.p_adjusted < LEVEL or verdict.within_margin:
        return "No verdict, because of the divergence."
    equality = verdict.measured.claim.comparison == "="
    return f"{EQUALITY_OPEN if equality else WORDS['inconclusive']} {_power(verdict)}"


def _caveats(verdict: Verdict) -> str:
    """What keeps a difference that exists from meaning much."""
    measured = verdict.measured
    if verdict.p_adjusted >= LEVEL:
        return ""
    small = " The difference is smaller than the margin." * verdict.within_margin
    either = measured.images_low <= 0 <= measured.images_high
    return small + " On other test images its sign could be the opposite." * either


def _power(verdict: Verdict) -> str:
    n, margin = len(verdict.measured.seeds), percent(verdict.measured.claim.margin)
    needed = f"{verdict.seeds_needed:,} seeds" if verdict.seeds_needed else "over a million seeds"
    return (
        f"With the spread seen, {n} seeds find a true difference of "
        f"{percent(verdict.detectable)} points with 80 % power; one of {margin} needs {needed}."
    )


def capital(words: str) -> str:
    """The same with a capital at its start."""
    return words[0].upper() + words[1:]
