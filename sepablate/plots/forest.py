"""The scorecard as a forest plot: one row per claim, on one axis, in percentage points."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sepablate.analysis import wording
from sepablate.analysis.verdicts import Verdict
from sepablate.plots import study_figure
from sepablate.plots.style import RC_PARAMS, Style

# A colour and a shape for each word; the word stands beside, so neither has to be known by heart.
OUTCOME_STYLES = {
    "holds": Style("#0072B2", "-", "s"),
    "contradicted": Style("#D55E00", "-", "X"),
    "equivalent": Style("#009E73", "-", "D"),
    "inconclusive": Style("#666666", "-", "o"),
}
WIDTH, HEAD, FOOT = 4.8, 0.05, 0.45  # inches
MANY = 10  # claims, beyond which the plot must have low rows to fit on a page
CHARACTERS = 74  # in a line of a claim
LINE: dict[str, Any] = {
    "xycoords": ("figure fraction", "data"),
    "textcoords": ("figure fraction", "data"),
    "arrowprops": {"arrowstyle": "-", "color": "#CCCCCC", "linewidth": 0.6},
}


class Row(NamedTuple):
    """In inches: its height, half of the band's, from the band up to the claim, from its middle
    down to the result's. line: whether one parts it from the row above."""

    height: float
    band: float
    gap: float
    lower: float
    line: bool


HIGH, LOW = Row(0.76, 0.1216, 0.038, 0, False), Row(0.63, 0.085, 0.03, 0.055, True)


def draw(verdicts: Sequence[Verdict], kind: str, description: str) -> bytes:
    """The forest plot of a report as "png" or "svg"; the same bytes for the same verdicts.

    description: the run keys behind it, kept in its metadata.
    """
    with matplotlib.style.context(["default", RC_PARAMS]):
        height = HEAD + rows_of(verdicts).height * max(len(verdicts), 1) + FOOT
        figure = Figure(figsize=(WIDTH, height), dpi=200)
        figure.subplots_adjust(
            left=0.03, right=0.66, bottom=FOOT / height, top=(height - HEAD) / height
        )
        forest(verdicts, figure.subplots())
        return study_figure.render(figure, kind, description)


def rows_of(verdicts: Sequence[Verdict]) -> Row:
    """Low ones for many claims, if none takes two lines."""
    short = all(len(each.measured.claim.statement) <= CHARACTERS for each in verdicts)
    return LOW if len(verdicts) > MANY and short else HIGH


def forest(verdicts: Sequence[Verdict], axis: Axes) -> Axes:
    """Row by row the claim, and below it mean, 95 % interval, margin and zero; verdict beside.

    A claim without an interval has a mean alone, one without seeds nothing.
    """
    height, *inches, line = rows_of(verdicts)
    band, gap, lower = (each / height for each in inches)
    for row, verdict in enumerate(verdicts):
        measured, style = verdict.measured, OUTCOME_STYLES[verdict.outcome]
        mean, low, high, margin = (
            100 * part
            for part in (measured.mean, measured.low, measured.high, measured.claim.margin)
        )
        axis.fill_between([-margin, margin], row - band, row + band, color="#DDDDDD", linewidth=0)
        axis.plot([0, 0], [row - band, row + band], color="black", linewidth=0.8)
        axis.plot([low, high], [row, row], color=style.colour, linewidth=1.6)
        face = "white" if verdict.outcome == "inconclusive" else style.colour
        axis.plot(mean, row, style.marker, color=style.colour, markerfacecolor=face, markersize=5.5)
        _words(verdict, row - band - gap, row + lower, axis)
        if line and row:
            above = row - 0.69
            axis.annotate("", (0.98, above), (0.02, above), **LINE)
    axis.set_ylim(max(len(verdicts), 1) - 0.7, -0.7)
    axis.set_yticks([])
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    label = "Left minus right, in percentage points, with 95 % interval; grey: margin"
    axis.set_xlabel(label, loc="left")
    return axis


def _words(verdict: Verdict, above: float, beside: float, axis: Axes) -> None:
    """The claim above its interval; difference, n and verdict to the right of it."""
    measured, claim = verdict.measured, verdict.measured.claim
    claimed = "\n".join(textwrap.wrap(wording.capital(claim.statement), CHARACTERS))
    compared = f"{measured.left_label} {claim.comparison} {measured.right_label}"
    section = f"{wording.capital(wording.place(claim.section))}: {compared}"
    found = f"{wording.difference(verdict)}\n"
    word = f"\n{verdict.outcome}{'*' * bool(measured.diverged)}, n = {len(measured.seeds)}"
    colour = OUTCOME_STYLES[verdict.outcome].colour
    parts: tuple[tuple[str, float, float, dict[str, Any]], ...] = (
        (f"{claimed}\n", 0.02, above, {"va": "bottom", "fontsize": 8}),
        (section, 0.02, above, {"va": "bottom", "color": "#555555", "fontsize": 7.5}),
        (found, 0.68, beside, {"va": "center", "fontsize": 7.5}),
        (word, 0.68, beside, {"va": "center", "color": colour, "weight": "bold", "fontsize": 7.5}),
    )
    for text, x, y, style in parts:
        axis.annotate(text, (x, y), xycoords=("figure fraction", "data"), **style)
