"""Verdicts as sentences, with every number that they rest on."""

import dataclasses
import math
from collections.abc import Sequence

from sepablate.analysis import effects
from sepablate.analysis.formatting import (
    capitalize,
    markdown_table,
    percent,
    probability,
    with_interval,
)
from sepablate.analysis.statistics import LEVEL
from sepablate.analysis.verdicts import Verdict

METRICS = {
    "accuracy": "final test accuracy",
    "map_100": "final test MAP@100",
    "speed": "mean validation score over the curve",
}
OUTCOMES = {
    "holds": "The claim holds here.",
    "contradicted": "The claim is contradicted here.",
    "equivalent": "The two are equivalent here: the difference claimed is smaller than the margin.",
    "inconclusive": "The difference is not distinguishable from zero.",
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


def scorecard(verdicts: Sequence[Verdict]) -> str:
    """Return a table with one line per claim of the report."""
    rows = [
        (
            capitalize(verdict.measured.claim.statement),
            capitalize(verdict.measured.claim.section),
            METRICS[verdict.measured.claim.metric],
            difference(verdict),
            str(len(verdict.measured.seeds)),
            probability(verdict.p_adjusted),
            f"**{verdict.outcome}**" + " \\*" * bool(verdict.measured.diverged),
        )
        for verdict in verdicts
    ]
    return markdown_table(SCORECARD, rows)


def sentence(verdict: Verdict) -> str:
    """Return the result of one claim, in full."""
    measured, claim = verdict.measured, verdict.measured.claim
    parts = [
        f"*{capitalize(claim.statement)}* ({section(claim.section)}).",
        f"At this scale (n = {len(measured.seeds)} paired seeds), the difference in "
        f"{METRICS[claim.metric]}, {measured.left_label} minus {measured.right_label}, is "
        f"{difference(verdict)} points (95 % interval over seeds; {_statistics(verdict)}).",
        _divergence(verdict),
        _outcome(verdict),
    ]
    return " ".join(filter(None, parts))


def to_json(verdicts: Sequence[Verdict]) -> str:
    """Return verdicts as strict JSON, null for nan, each with its sentence."""
    plain = [{**dataclasses.asdict(verdict), "sentence": sentence(verdict)} for verdict in verdicts]
    return effects.dump_json(plain)


def section(name: str) -> str:
    """Return the place of a claim: "section 4.6", or "table 4", which needs no such word."""
    return f"section {name}" if name[0].isdigit() else name


def difference(verdict: Verdict) -> str:
    """Return the mean difference and its interval, in points."""
    measured = verdict.measured
    return with_interval(measured.mean, measured.low, measured.high, sign="+")


def _statistics(verdict: Verdict) -> str:
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


def _divergence(verdict: Verdict) -> str:
    diverged = verdict.measured.diverged
    if not diverged:
        return ""
    runs = ", ".join(
        f"seed {run.seed} of {run.label} diverged at step {run.step}" for run in diverged
    )
    return (
        f"{capitalize(runs)}: left out on both sides; the other seeds are no evidence for a "
        "variant that diverged."
    )


def _outcome(verdict: Verdict) -> str:
    if math.isnan(verdict.measured.deviation):
        return "No verdict: fewer than two pairs, or all differences equal."
    if verdict.outcome != "inconclusive":
        return OUTCOMES[verdict.outcome] + _caveats(verdict)
    if verdict.p_adjusted < LEVEL or verdict.within_margin:
        return "No verdict, because of the divergence."
    equality = verdict.measured.claim.comparison == "="
    return f"{EQUALITY_OPEN if equality else OUTCOMES['inconclusive']} {_power(verdict)}"


def _caveats(verdict: Verdict) -> str:
    """Return the reasons why a significant difference may mean little."""
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
        f"With the observed spread, {n} seeds detect a true difference of "
        f"{percent(verdict.detectable)} points with 80 % power; one of {margin} needs {needed}."
    )
