"""A claim over all settings: its effects in rising order, and below them what each setting is."""

from collections.abc import Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sepablate.analysis.formatting import capitalize
from sepablate.analysis.robustness import Carrying
from sepablate.plots import study_figure
from sepablate.plots.style import COLOURS, MUTED, RC_PARAMS, Style
from sepablate.study import BASE, RobustnessStudy

# The outcome is also printed, so that nobody has to learn the colours and shapes. The shapes are
# none of the verdicts' (`forest`), for one figure shows both.
CARRYING_STYLES = {
    "carries": Style(COLOURS[0], "-", ">"),
    "reversed": Style(COLOURS[1], "-", "<"),
    "depends": Style(COLOURS[3], "-", "P"),
    "open": Style(MUTED, "-", "^"),
}
ABOVE, BELOW, UNCLEAR = COLOURS[0], COLOURS[1], MUTED
POOLED, PAPER = "#DCE6F5", COLOURS[4]
WIDTH, TOP, LEVEL_HEIGHT = 7.0, 2.5, 0.155  # inches; of the upper axis, and of a row below it
LEFT, RIGHT, HEAD, FOOT, GAP = 1.35, 1.25, 0.25, 0.68, 0.12  # inches
REACH = 0.6  # how far a bar may widen the axis, of what the means and the bands span


def draw(carrying: Carrying, declared: RobustnessStudy, kind: str, scale: str) -> bytes:
    """Return the specification curve of a claim; the same bytes for the same effects.

    Args:
        carrying: the claim's effects and what was made of them.
        declared: the study, for the factors and the labels of their levels.
        kind: "png" or "svg".
        scale: the name of the scale.
    """
    levels = shown_levels(carrying, declared)
    rows = LEVEL_HEIGHT * (len(levels) + 0.5)
    height = HEAD + TOP + GAP + rows + FOOT
    with matplotlib.style.context(["default", RC_PARAMS]):
        figure = Figure(figsize=(WIDTH, height), dpi=200)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(TOP, rows))
        figure.subplots_adjust(
            left=LEFT / WIDTH,
            right=1 - RIGHT / WIDTH,
            bottom=FOOT / height,
            top=1 - HEAD / height,
            hspace=2 * GAP / (TOP + rows),
        )
        order = rising(carrying)
        effects(carrying, order, upper)
        choices(carrying, declared, order, levels, lower)
        style: dict[str, Any] = {"fontsize": 6.5, "color": MUTED, "va": "bottom"}
        figure.text(0.01, 0.06 / height, footer(carrying, scale), **style)
        return study_figure.render(figure, kind, run_keys([carrying]))


def rising(carrying: Carrying) -> list[int]:
    """Return the indices of the settings that have an effect, the smallest first."""
    means = [mean for mean, _, _ in carrying.means]
    return sorted((i for i, mean in enumerate(means) if not np.isnan(mean)), key=means.__getitem__)


def shown_levels(carrying: Carrying, declared: RobustnessStudy) -> list[tuple[str, str]]:
    """Return the factors and levels that the settings have, as the study lists them."""
    present = {pair for each in carrying.effects.settings for pair in each.levels.items()}
    return [
        (factor.name, level)
        for factor in declared.factors
        for level in ordered_levels(declared, factor.name)
        if (factor.name, level) in present
        and len({name for name in present if name[0] == factor.name}) > 1
    ]


def ordered_levels(declared: RobustnessStudy, name: str) -> list[str]:
    """Return a factor's levels: numbers from small to large, else the scale's own first."""
    factor = declared.factor(name)
    levels = [factor.base, *factor.levels]
    numbers = {level: number for level in levels if (number := as_number(level)) is not None}
    return sorted(levels, key=numbers.__getitem__) if len(numbers) == len(levels) else levels


def effects(carrying: Carrying, order: Sequence[int], axis: Axes) -> Axes:
    """Draw each setting's mean and 95 % interval, and the pooled mean with its two intervals."""
    estimate, (bottom, top) = carrying.estimate, _limits(carrying, order)
    axis.axhspan(100 * estimate.new_low, 100 * estimate.new_high, color=POOLED, linewidth=0)
    for edge in (estimate.new_low, estimate.new_high):
        axis.axhline(100 * edge, color="#7C93B8", linewidth=0.7)
    axis.axhspan(100 * estimate.low, 100 * estimate.high, color="#AFC4E6", linewidth=0)
    axis.axhline(100 * estimate.mean, color="#34558B", linewidth=1.0, linestyle=(0, (5, 1.5)))
    axis.axhline(0, color="black", linewidth=0.8)
    for position, index in enumerate(order):
        mean, low, high = (100 * number for number in carrying.means[index])
        colour = ABOVE if low > 0 else BELOW if high < 0 else UNCLEAR
        base = carrying.effects.settings[index].setting == BASE
        marker = "D" if base else "o"
        face = "white" if colour == UNCLEAR else colour
        axis.plot([position] * 2, [low, high], color=colour, linewidth=1.3)
        axis.plot(position, mean, marker, color=colour, markerfacecolor=face, markersize=5)
        for beyond, edge, arrow in ((low < bottom, bottom, "v"), (high > top, top, "^")):
            if beyond:
                axis.plot(position, edge, arrow, color=colour, markersize=4, clip_on=False)
    axis.set_ylim(bottom, top)
    axis.set_xlim(-0.6, len(order) - 0.4)
    axis.grid(axis="x", visible=False)
    axis.tick_params(axis="x", length=0)
    claim = carrying.effects
    axis.set_title(capitalize(claim.claim.statement))
    axis.set_ylabel(f"{claim.left_label} minus\n{claim.right_label} (points)")
    _write_beside(carrying, axis)
    return axis


def choices(
    carrying: Carrying,
    declared: RobustnessStudy,
    order: Sequence[int],
    levels: Sequence[tuple[str, str]],
    axis: Axes,
) -> Axes:
    """Draw a row for each level of each factor, with a dot where a setting has it."""
    settings = carrying.effects.settings
    for row, (name, level) in enumerate(levels):
        if [pair[0] for pair in levels[:row]].count(name) == 0 and row:
            axis.axhline(row - 0.5, color="#B0B0B0", linewidth=0.6)
        chosen = [settings[index].levels[name] == level for index in order]
        departs = level != declared.factor(name).base
        style = {"color": "black" if departs else "#9A9A9A", "markersize": 4.5 if departs else 3}
        for position, has in enumerate(chosen):
            if has:
                axis.plot(position, row, "o", **style)  # type: ignore[arg-type]
    axis.set_ylim(len(levels) - 0.5, -0.5)
    axis.set_yticks(range(len(levels)))
    axis.set_yticklabels(level_labels(declared, levels), fontsize=7)
    axis.set_xticks(range(len(order)))
    axis.set_xticklabels([str(len(settings[index].seeds)) for index in order], fontsize=7)
    axis.set_xlabel("n: paired seeds of each setting", fontsize=7, labelpad=1)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis


def level_labels(declared: RobustnessStudy, levels: Sequence[tuple[str, str]]) -> list[str]:
    """Return a label for each row: the factor is named at its first one."""
    named: set[str] = set()
    labels = []
    for name, level in levels:
        first = "" if name in named else f"{declared.factor(name).label}:  "
        named.add(name)
        labels.append(f"{first}{level}")
    return labels


def footer(carrying: Carrying, scale: str) -> str:
    """Return data set, scale, n, and the meaning of the marks."""
    base = next(each for each in carrying.effects.settings if each.setting == BASE)
    return (
        f"{base.dataset}, scale {scale} (the diamond), {carrying.estimate.k - 1} departures; bars: "
        "95 % Student's t interval over seeds, cut at the frame; hollow: it includes zero.\n"
        "Dashed: pooled mean, with its 95 % interval (dark) and the 95 % prediction interval of a "
        "new setting (light)."
    )


def run_keys(claims: Sequence[Carrying]) -> str:
    """Return the runs of some claims as `setting/variant seed:key seed:key; ...`."""
    entries = {}
    for claim in claims:
        for setting in claim.effects.settings:
            for side, keys in setting.run_keys.items():
                pairs = (f"{seed}:{key}" for seed, key in sorted(keys.items()))
                entries[f"{setting.setting}/{side}"] = " ".join(pairs)
    return "; ".join(f"{name} {keys}" for name, keys in entries.items())


def as_number(level: str) -> float | None:
    """Return the number that a level's label is, or None."""
    numerator, _, denominator = level.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        return None


def _limits(carrying: Carrying, order: Sequence[int]) -> tuple[float, float]:
    """Return limits that show every mean, the bands, zero, and most of every interval."""
    estimate = carrying.estimate
    means = [carrying.means[index][0] for index in order]
    values = [*means, estimate.new_low, estimate.new_high, 0.0]
    if carrying.paper is not None:
        values.append(carrying.paper)
    low, high = min(values), max(values)
    reach = REACH * (high - low)
    ends = [end for index in order for end in carrying.means[index][1:] if not np.isnan(end)]
    low = max(min([low, *ends]), low - reach)
    high = min(max([high, *ends]), high + reach)
    room = 0.05 * (high - low)
    return 100 * (low - room), 100 * (high + room)


def _write_beside(carrying: Carrying, axis: Axes) -> None:
    """Write what the bands are to their right, apart from each other, and the paper's line."""
    estimate = carrying.estimate
    style = CARRYING_STYLES[carrying.outcome]
    texts: list[tuple[float, str, str]] = [
        (estimate.new_high, "new setting", "#4A6290"),
        (estimate.mean, f"pooled {100 * estimate.mean:+.1f}".replace("-", "−"), "#34558B"),
        (estimate.new_low, "new setting", "#4A6290"),
    ]
    if carrying.paper is not None:
        axis.axhline(100 * carrying.paper, color=PAPER, linewidth=1.2, linestyle=(0, (1, 1)))
        texts.append((carrying.paper, f"paper {100 * carrying.paper:+.1f}", PAPER))
    low, high = axis.get_ylim()
    least = (high - low) * 0.075
    at = -np.inf
    for value, text, colour in sorted(texts):
        at = max(100 * value, at + least)
        axis.annotate(
            text,
            (1.015, at),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            color=colour,
        )
    axis.annotate(
        f"{carrying.outcome}, k = {estimate.k}",
        (1.015, 1.03),
        xycoords="axes fraction",
        fontsize=8,
        weight="bold",
        color=style.colour,
    )
