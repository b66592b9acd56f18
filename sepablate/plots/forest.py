"""The scorecard as a forest plot: one row per claim, on one axis, in percentage points."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sepablate.analysis import wording
from sepablate.analysis.formatting import capitalize, count_of_claims
from sepablate.analysis.verdicts import Verdict
from sepablate.plots import study_figure
from sepablate.plots.style import COLOURS, MUTED, RC_PARAMS, Style

# The outcome is also printed, so that nobody has to learn the colours and shapes.
OUTCOME_STYLES = {
    "holds": Style(COLOURS[0], "-", "s"),
    "contradicted": Style(COLOURS[1], "-", "X"),
    "equivalent": Style(COLOURS[2], "-", "D"),
    "inconclusive": Style(MUTED, "-", "o"),
}
HEAD, ROW, FOOT = 0.05, 0.76, 0.78  # inches
MANY = 10  # claims, beyond which they stand in two columns
COLUMNS = {1: (4.8, 74), 2: (4.25, 65)}  # inches of a column, characters in a line of a claim
HALF, GAP = 0.16, 0.05  # rows: half of the height of the margin's band, and from there to the claim
# The margin's band: its edge has 3:1 on white, its fill has not.
BAND: dict[str, Any] = {"facecolor": "#DDDDDD", "edgecolor": "#8C8C8C", "linewidth": 0.4}
SECTION = "#555555"


def draw(verdicts: Sequence[Verdict], kind: str, description: str, scale: str = "") -> bytes:
    """Return the forest plot of a report; the same bytes for the same verdicts.

    Args:
        verdicts: of the report, a row for each.
        kind: "png" or "svg".
        description: the run keys that it shows, kept in its metadata.
        scale: the name of the scale.
    """
    columns = 1 + (len(verdicts) > MANY)
    width, characters = COLUMNS[columns]
    rows = max(math.ceil(len(verdicts) / columns), 1)
    with matplotlib.style.context(["default", RC_PARAMS]):
        height = HEAD + ROW * rows + FOOT
        figure = Figure(figsize=(width * columns, height), dpi=200)
        parts: Any = figure.subfigures(1, columns) if columns > 1 else [figure]
        shared: Axes | None = None  # all columns have one scale
        for column, part in enumerate(parts):
            part.subplots_adjust(
                left=0.03, right=0.66, bottom=FOOT / height, top=(height - HEAD) / height
            )
            axis = part.add_subplot(sharex=shared)
            shared = shared or axis
            forest(verdicts[column * rows :][:rows], axis, rows, characters)
        style: dict[str, Any] = {"fontsize": 6.5, "color": MUTED, "va": "bottom"}
        figure.text(0.03 / columns, 0.08 / height, footer(verdicts, scale), **style)
        return study_figure.render(figure, kind, description)


def footer(verdicts: Sequence[Verdict], scale: str) -> str:
    """Return data sets, scale, n, and the meaning of the bars."""
    datasets = dict.fromkeys(verdict.measured.dataset for verdict in verdicts)
    counts = sorted({len(verdict.measured.seeds) for verdict in verdicts})
    used = dict.fromkeys(mark for verdict in verdicts for mark in wording.marks(verdict))
    explained = f" {' '.join(used)}: see the report." if used else ""
    return (
        f"{', '.join(datasets)}; scale {scale}; n = {' or '.join(map(str, counts))} paired seeds."
        f"{explained}\nThick: 95 % Student's t interval over seeds; thin: corrected for "
        f"{count_of_claims(len(verdicts))}."
    )


def forest(
    verdicts: Sequence[Verdict], axis: Axes, rows: int = 1, characters: int = COLUMNS[1][1]
) -> Axes:
    """Draw a row per claim: its text, its mean, intervals, margin and zero, and its verdict.

    The thick interval is the 95 % one, the thin one that corrected for all claims. A claim without
    an interval has only a mean, one without seeds neither.

    Args:
        verdicts: of the claims, from top to bottom.
        axis: to draw on.
        rows: at least so many have room.
        characters: in a line of a claim.
    """
    for row, verdict in enumerate(verdicts):
        measured, style = verdict.measured, OUTCOME_STYLES[verdict.outcome]
        mean, low, high, margin = (
            100 * part
            for part in (measured.mean, measured.low, measured.high, measured.claim.margin)
        )
        axis.fill_between([-margin, margin], row - HALF, row + HALF, **BAND)
        axis.plot([0, 0], [row - HALF, row + HALF], color="black", linewidth=0.8)
        corrected = [100 * verdict.corrected_low, 100 * verdict.corrected_high]
        axis.plot(corrected, [row, row], color=style.colour, linewidth=0.7)
        axis.plot([low, high], [row, row], color=style.colour, linewidth=2.2)
        face = "white" if verdict.outcome == "inconclusive" else style.colour
        axis.plot(mean, row, style.marker, color=style.colour, markerfacecolor=face, markersize=5.5)
        _write(verdict, row, characters, axis)
    axis.set_ylim(max(len(verdicts), rows) - 0.7, -0.7)
    axis.set_yticks([])
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    label = "Left minus right, in percentage points; grey: margin"
    axis.set_xlabel(label, loc="left")
    return axis


def _write(verdict: Verdict, row: int, characters: int, axis: Axes) -> None:
    """Write the claim above its interval, and difference, n and verdict to the right of it."""
    measured, claim = verdict.measured, verdict.measured.claim
    statement = "\n".join(textwrap.wrap(capitalize(claim.statement), characters))
    compared = f"{measured.left_label} {claim.comparison} {measured.right_label}"
    section = f"{capitalize(wording.section(claim.section))}: {compared}"
    estimate = f"{wording.difference(verdict)}\n"
    outcome = (
        f"\n{verdict.outcome}{' '.join(['', *wording.marks(verdict)])}, n = {len(measured.seeds)}"
    )
    colour = OUTCOME_STYLES[verdict.outcome].colour
    above = row - HALF - GAP
    parts: tuple[tuple[str, float, float, dict[str, Any]], ...] = (
        (f"{statement}\n", 0.02, above, {"va": "bottom", "fontsize": 8}),
        (section, 0.02, above, {"va": "bottom", "color": SECTION, "fontsize": 7.5}),
        (estimate, 0.68, row, {"va": "center", "fontsize": 7.5}),
        (
            outcome,
            0.68,
            row,
            {"va": "center", "color": colour, "weight": "bold", "fontsize": 7.5},
        ),
    )
    for text, x, y, style in parts:
        axis.annotate(text, (x, y), xycoords=("subfigure fraction", "data"), **style)
