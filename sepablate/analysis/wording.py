"""Verdicts as sentences, with every number that they rest on."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from sepablate.analysis import effects, statistics
from sepablate.analysis.formatting import (
    capitalize,
    count_of_claims,
    markdown_table,
    percent,
    probability,
    with_interval,
)
from sepablate.analysis.statistics import LEVEL
from sepablate.analysis.verdicts import Verdict
from sepablate.paper.accuracies import FAR

METRICS = {
    "accuracy": "final test accuracy",
    "map_100": "final test MAP@100",
    "map": "final test mAP",
    "speed": "mean validation score over the curve",
    "per_cost": "final test score per mult-add, relative to the baseline's mult-adds",
}
OUTCOMES = {
    "holds": "The claim holds here.",
    "contradicted": "The claim is contradicted here.",
    "equivalent": "The two are equivalent here: the difference claimed is smaller than the margin.",
    "inconclusive": "The difference is not distinguishable from zero.",
}
NOT_AFTER = (
    "The 95 % interval excludes zero, but after correction for {claims} of this report "
    "the difference is not distinguishable from zero."
)
EQUALITY_OPEN = "The difference is shown neither to be within the margin nor to be beyond it."
MARKS = {
    "*": "Some runs diverged; see below.",
    "†": "The differences may not be as the t-test assumes: they are clearly skewed, or the exact "
    "sign-flip test disagrees; see below. Under skewed noise false verdicts are more frequent than "
    "the p-values say.",
    "‡": "On final accuracy, with a baseline more than "
    f"{100 * FAR:g} points below the lowest published accuracy of networks of its kind: "
    "between fully trained networks the difference may be smaller, or of the other sign.",
}
SCORECARD = (
    "Claim",
    "Section",
    "Measured",
    "Difference (points)",
    "For {claims}",
    "n",
    "Adjusted p",
    "Verdict",
)


def scorecard(verdicts: Sequence[Verdict]) -> str:
    """Return a table with one line per claim of the report, and what its marks mean."""
    rows = [
        (
            capitalize(verdict.measured.claim.statement),
            capitalize(verdict.measured.claim.section),
            METRICS[verdict.measured.claim.metric],
            difference(verdict),
            f"[{percent(verdict.corrected_low, '+')}, {percent(verdict.corrected_high, '+')}]",
            str(len(verdict.measured.seeds)),
            _deciding_p(verdict),
            " ".join([f"**{verdict.outcome}**", *map(_escaped, marks(verdict))]),
        )
        for verdict in verdicts
    ]
    header = [head.format(claims=count_of_claims(len(verdicts), "all")) for head in SCORECARD]
    used = {mark for verdict in verdicts for mark in marks(verdict)}
    legend = [f"\n{_escaped(mark)} {text}\n" for mark, text in MARKS.items() if mark in used]
    return markdown_table(header, rows) + "".join(legend)


def _deciding_p(verdict: Verdict) -> str:
    """Return the p-value that the verdict rests on, that of equivalence with its margin."""
    claim = verdict.measured.claim
    of_equality = claim.comparison == "=" and verdict.outcome != "contradicted"
    if of_equality or verdict.outcome == "equivalent":
        margin = f"{100 * claim.margin:g}"
        return f"{probability(verdict.p_equivalence_adjusted)} (within ±{margin})"
    return probability(verdict.p_adjusted)


def marks(verdict: Verdict) -> list[str]:
    """Return the marks of a verdict, each a sign in MARKS."""
    reasons = (verdict.measured.diverged, verdict.doubtful, verdict.measured.far_below)
    return [mark for mark, applies in zip(MARKS, reasons, strict=True) if applies]


def _escaped(mark: str) -> str:
    """Return a mark as Markdown prints it."""
    return mark.replace("*", "\\*")


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
        _doubts(verdict),
        _far_below(verdict),
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
    low, high = percent(verdict.corrected_low, "+"), percent(verdict.corrected_high, "+")
    parts = [
        f"for {count_of_claims(verdict.family, 'all')} at once [{low}, {high}]",
        f"adjusted p {probability(verdict.p_adjusted)}",
        f"exact sign-flip p {probability(measured.p_sign_flip)}",
        f"adjusted equivalence p {probability(verdict.p_equivalence_adjusted)} "
        f"for ±{percent(measured.claim.margin)} points",
    ]
    if not math.isnan(measured.images_low):
        low, high = percent(measured.images_low, "+"), percent(measured.images_high, "+")
        parts.insert(1, f"over test images [{low}, {high}]")
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
    zero = (
        NOT_AFTER.format(claims=count_of_claims(verdict.family, "the"))
        if _only_alone(verdict)
        else OUTCOMES["inconclusive"]
    )
    return f"{EQUALITY_OPEN if equality else zero} {_power(verdict)}"


def _only_alone(verdict: Verdict) -> bool:
    """Return whether the 95 % interval excludes zero, which the corrected test does not."""
    return not verdict.measured.low <= 0 <= verdict.measured.high


def _caveats(verdict: Verdict) -> str:
    """Return the reasons why a significant difference may mean little."""
    measured = verdict.measured
    if verdict.p_adjusted >= LEVEL:
        return ""
    small = " The difference is smaller than the margin." * verdict.within_margin
    either = measured.images_low <= 0 <= measured.images_high
    return small + " On other test images its sign could be the opposite." * either


def _doubts(verdict: Verdict) -> str:
    """Return why the differences may not be as the t-test assumes."""
    skewness = statistics.skewness(np.array(verdict.measured.differences))
    agreed = "finds" if verdict.p_adjusted >= LEVEL else "does not find"
    parts = [
        f"the differences are clearly skewed (skewness {skewness:+.2f})".replace("-", "−")
        * verdict.skewed,
        f"the exact sign-flip test {agreed} a difference (adjusted p "
        f"{probability(verdict.p_sign_flip_adjusted)})" * verdict.tests_disagree,
    ]
    return f"† {capitalize(', and '.join(filter(None, parts)))}." if verdict.doubtful else ""


def _far_below(verdict: Verdict) -> str:
    if not verdict.measured.far_below:
        return ""
    below = percent(verdict.measured.below_published)
    return f"‡ The baseline ends {below} points below the lowest published accuracy of its kind."


def _power(verdict: Verdict) -> str:
    n, margin = len(verdict.measured.seeds), percent(verdict.measured.claim.margin)
    needed = f"{verdict.seeds_needed:,} seeds" if verdict.seeds_needed else "over a million seeds"
    return (
        f"With the observed spread, {n} seeds detect a true difference of "
        f"{percent(verdict.detectable)} points with 80 % power; one of {margin} needs {needed}."
    )
