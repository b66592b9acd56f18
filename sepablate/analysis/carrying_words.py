"""How far verdicts carry, as sentences and tables, with every number that they rest on."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from sepablate.analysis.formatting import (
    capitalize,
    count_of_claims,
    markdown_table,
    percent,
    probability,
    with_interval,
)
from sepablate.analysis.robustness import OUTCOMES, Carrying, FactorShare, LeftOut, Trend
from sepablate.paper import xception as paper
from sepablate.study import BASE, RobustnessStudy

SCORECARD = (
    "Claim",
    "Pooled difference (points)",
    "New setting",
    "True effect there",
    "τ",
    "I²",
    "k",
    "Outcome",
)
MEANS = {
    "carries": "a new setting is expected to show it too",
    "reversed": "a new setting is expected to show the opposite",
    "depends": "the settings differ by more than their seeds explain",
    "open": "the settings show neither",
}


def scorecard(claims: Sequence[Carrying]) -> str:
    """Return a table with a line per claim."""
    rows = [
        (
            capitalize(each.effects.claim.statement),
            with_interval(each.estimate.mean, each.estimate.low, each.estimate.high, sign="+"),
            interval(each.estimate.new_low, each.estimate.new_high),
            interval(each.estimate.true_low, each.estimate.true_high),
            percent(each.estimate.tau),
            f"{100 * each.estimate.i_squared:.0f} %",
            str(each.estimate.k),
            f"**{each.outcome}**{on_what(each)}",
        )
        for each in claims
    ]
    return markdown_table(SCORECARD, rows)


def summary(claims: Sequence[Carrying]) -> str:
    """Return which claims carry, which depend and on what, and which are open: a line each."""
    counts = Counter(each.outcome for each in claims)
    counted = ", ".join(f"{counts[name]} *{name}*" for name in OUTCOMES if counts[name])
    lines = [f"Of {count_of_claims(len(claims))}: {counted}.\n"]
    lines += [
        f"- {capitalize(each.effects.claim.statement)}: {_told(each)}; "
        f"the claimed sign in {signs(each)}; {_stability(each)}."
        for each in claims
    ]
    return "\n".join(lines) + "\n"


def signs(carrying: Carrying) -> str:
    """Return in how many settings the difference has the claimed sign, as "9 of 10 settings"."""
    means = [mean for mean, _, _ in carrying.means]
    claimed, known = claimed_signs(carrying.effects.claim.comparison, means)
    return f"{claimed} of {known} settings"


def claimed_signs(comparison: str, means: Sequence[float]) -> tuple[int, int]:
    """Return how many differences have the claimed sign, and how many are known: not nan.

    Args:
        comparison: of the claim, ">" or "<".
        means: the difference in each setting.
    """
    sign = 1 if comparison == ">" else -1
    return sum(sign * mean > 0 for mean in means), sum(not math.isnan(mean) for mean in means)


def on_what(carrying: Carrying) -> str:
    """Return the factor on which a claim depends most: ", most on the budget"; "" for none."""
    first = most(carrying)
    if carrying.outcome != "depends" or first is None:
        return ""
    return f", most on the {first.label.lower()}"


def most(carrying: Carrying) -> FactorShare | None:
    """Return the factor that explains most of tau^2; None if none explains any."""
    first = carrying.shares[0] if carrying.shares else None
    return first if first and first.share > 0 else None


def sentence(carrying: Carrying, declared: RobustnessStudy) -> str:
    """Return the result of one claim, in full."""
    labels = _labels(declared)
    estimate, effects = carrying.estimate, carrying.effects
    parts = [
        f"Over {estimate.k} settings, {effects.left_label} minus {effects.right_label} is "
        f"{with_interval(estimate.mean, estimate.low, estimate.high, sign='+')} points. A new "
        "setting, measured with as few seeds, is expected within "
        f"{interval(estimate.new_low, estimate.new_high)}; its true effect within "
        f"{interval(estimate.true_low, estimate.true_high)}. The true effects vary by τ = "
        f"{percent(estimate.tau)} points (I² {100 * estimate.i_squared:.0f} %; p "
        f"{probability(estimate.p_equal)} of equal effects).",
        f"The verdict **{carrying.outcome}**{on_what(carrying)}: {MEANS[carrying.outcome]}.",
        f"The difference has the claimed sign in {signs(carrying)}.",
        _left_out(carrying, labels),
        _trend(carrying),
        _diverged(carrying, labels),
    ]
    return " ".join(filter(None, parts)) + "\n"


def settings_table(carrying: Carrying, declared: RobustnessStudy) -> str:
    """Return a line per setting: what it is, its images, its n, its difference."""
    labels = _labels(declared)
    rows = [
        (
            labels.get(each.setting, each.setting),
            f"`{each.dataset}`",
            f"{each.images_seen:,}",
            str(len(each.seeds)),
            with_interval(*numbers, sign="+"),
        )
        for each, numbers in zip(carrying.effects.settings, carrying.means, strict=True)
    ]
    header = ("Setting", "Data set", "Images seen", "n", "Difference (points)")
    return markdown_table(header, rows)


def factors_table(carrying: Carrying) -> str:
    """Return a line per factor: the share of tau^2 that it explains, and its p-value."""
    rows = [
        (
            each.label,
            "–" if math.isnan(each.share) else f"{100 * each.share:.0f} %",
            probability(each.p),
        )
        for each in carrying.shares
    ]
    return markdown_table(("Factor", "Explains of τ²", "p"), rows)


def interval(low: float, high: float) -> str:
    """Return an interval of differences, in points."""
    return f"[{percent(low, '+')}, {percent(high, '+')}]"


def _labels(declared: RobustnessStudy) -> dict[str, str]:
    """Return what the table calls each setting, by its name."""
    labels = {setting.name: capitalize(declared.label(setting)) for setting in declared.settings}
    return {BASE: capitalize(declared.label(None)), **labels}


def _told(carrying: Carrying) -> str:
    first = most(carrying)
    text = f"**{carrying.outcome}**{on_what(carrying)}"
    if carrying.outcome == "depends" and first is not None:
        return f"{text} ({100 * first.share:.0f} % of τ², p {probability(first.p)})"
    if carrying.outcome == "depends":
        return f"{text}, on no single factor"
    return f"{text} ({MEANS[carrying.outcome]})"


def _stability(carrying: Carrying) -> str:
    """Return how many settings there are, without each of which the outcome is another."""
    count = len(_deciding(carrying))
    if not count:
        return "the same whichever setting is left out"
    settings = f"any one of {count} settings" if count > 1 else "1 setting"
    return f"another verdict if {settings}, named below, is left out"


def _deciding(carrying: Carrying) -> list[LeftOut]:
    """Return the settings without each of which the outcome is another."""
    return [each for each in carrying.left_out if each.outcome != carrying.outcome]


def _left_out(carrying: Carrying, labels: Mapping[str, str]) -> str:
    """Return whether a single setting decides the outcome."""
    others = _deciding(carrying)
    if not carrying.left_out:
        return ""
    if not others:
        return "It stays whichever setting is left out."
    changed = "; ".join(f"*{labels.get(each.setting, each.setting)}*" for each in others)
    outcomes = " or ".join(f"**{name}**" for name in dict.fromkeys(each.outcome for each in others))
    settings = f"any one of these {len(others)} settings" if len(others) > 1 else "one setting"
    return f"It would be {outcomes} without {settings}: {changed}."


def _trend(carrying: Carrying) -> str:
    trend = carrying.trend
    if trend is None:
        return ""
    doublings = round(math.log2(paper.IMAGES_SEEN / trend.images[-1]))
    slope = with_interval(trend.slope, trend.slope_low, trend.slope_high, sign="+")
    further = (
        f" A straight line would put it within "
        f"{interval(trend.at_paper_low, trend.at_paper_high)} at the paper's budget, {doublings} "
        f"doubling{'s' * (doublings > 1)} further, if it went on so far."
    )
    if why := _impossible(carrying, trend):
        further += f" {why}: so few budgets say nothing of the paper's."
    changes = f"With each doubling of the images seen it changes by {slope} points."
    return changes + further * (doublings > 0)  # the paper's scale has the paper's budget


def _impossible(carrying: Carrying, trend: Trend) -> str:
    """Return why the line's interval at the paper's budget is not to be believed; "" if it may."""
    low, high = trend.at_paper_low, trend.at_paper_high
    means = [mean for mean, _, _ in carrying.means if not math.isnan(mean)]
    if low < -1 or high > 1:
        return "Two scores cannot differ by more than 100 points"
    if (high < 0 < min(means)) or (low > 0 > max(means)):
        return "No setting has a difference of that sign"
    return ""


def _diverged(carrying: Carrying, labels: Mapping[str, str]) -> str:
    lost = [each for each in carrying.effects.settings if each.diverged]
    if not lost:
        return ""
    named = "; ".join(
        f"{labels.get(each.setting, each.setting)}: {', '.join(each.diverged)}" for each in lost
    )
    return f"Runs diverged ({named}); their seeds are left out on both sides."
