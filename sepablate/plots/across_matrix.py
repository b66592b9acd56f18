"""The matrix of verdicts: claims as rows, scales and data sets as columns, the paper at the end."""

import math
import textwrap
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sepablate.analysis.across import OVER_SETTINGS, Across, Cell
from sepablate.analysis.formatting import capitalize
from sepablate.plots import study_figure
from sepablate.plots.forest import OUTCOME_STYLES
from sepablate.plots.specification_curve import CARRYING_STYLES
from sepablate.plots.style import COLOURS, MUTED, RC_PARAMS

MARKERS = {name: style.marker for name, style in {**OUTCOME_STYLES, **CARRYING_STYLES}.items()}
HOLLOW = ("inconclusive", "open")  # the outcomes that show nothing
SCALE = LinearSegmentedColormap.from_list("sign", (COLOURS[1], "#FFFFFF", COLOURS[0]))
FULL = 20.0  # points, of the strongest colour; the colour follows the root of the difference
PALEST = 0.12  # of a difference that is not zero
COLUMN, ROW, TEXT, HEAD, FOOT = 1.34, 0.56, 2.75, 0.5, 0.55  # inches
CHARACTERS = 46  # in a line of a claim
DATA_SETS = {
    "fashion_mnist": "Fashion-MNIST",
    "garment_scenes": "scenes of garments",
    "garment_boxes": "boxes of garments",
    "cifar10": "CIFAR-10",
    "imagenet": "ImageNet",
    "coco": "COCO",
}


def draw(across: Across, kind: str) -> bytes:
    """Return the matrix of some claims; the same bytes for the same verdicts."""
    rows, columns = len(across.claims), len(across.columns) + 1
    width, height = TEXT + COLUMN * columns + 0.05, HEAD + ROW * max(rows, 1) + FOOT
    with matplotlib.style.context(["default", RC_PARAMS]):
        figure = Figure(figsize=(width, height), dpi=200)
        figure.subplots_adjust(
            left=TEXT / width, right=1 - 0.05 / width, bottom=FOOT / height, top=1 - HEAD / height
        )
        axis = matrix(across, figure.subplots())
        style: dict[str, Any] = {"fontsize": 6.5, "color": MUTED, "va": "bottom"}
        figure.text(0.08 / width, 0.08 / height, _footer(across), **style)
        _legend(across, axis, height)
        return study_figure.render(figure, kind, "verdicts of " + _scales(across))


def matrix(across: Across, axis: Axes) -> Axes:
    """Draw a cell for each claim and column: the difference as colour and number, the verdict."""
    rows, columns = len(across.claims), len(across.columns)
    for row in range(rows):
        for column in range(columns):
            cell = across.cells[row].get(column)
            if cell is None:
                _write_missing(across.missing(column), column, row, axis)
            else:
                _cell(cell, column, row, axis)
        _paper(across.paper[row], columns, row, axis)
    axis.set_xlim(0, columns + 1)
    axis.set_ylim(max(rows, 1), 0)
    axis.set_xticks([column + 0.5 for column in range(columns + 1)])
    heads = [f"{scale}\n{DATA_SETS.get(kind, kind)}" for scale, kind in across.columns]
    axis.set_xticklabels([*heads, "paper\nImageNet, one run"], fontsize=7.5)
    axis.xaxis.tick_top()
    axis.set_yticks([row + 0.5 for row in range(rows)])
    axis.set_yticklabels(
        ["\n".join(textwrap.wrap(_words(across, row), CHARACTERS)) for row in range(rows)],
        fontsize=7.5,
        ha="left",
    )
    axis.tick_params(length=0)
    axis.tick_params(axis="y", pad=72 * (TEXT - 0.1))
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis


def colour_of(difference: float) -> str:
    """Return the colour of a difference: blue above zero, orange below."""
    if math.isnan(difference):
        return "#FFFFFF"
    strength = min(math.sqrt(abs(100 * difference) / FULL), 1.0)
    return to_hex(SCALE(0.5 + math.copysign(max(strength, PALEST), difference) / 2))


def ink_on(colour: str) -> str:
    """Return black or white, of which a text has the higher contrast on a colour (WCAG 2.1)."""
    channels = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))
    return "white" if (luminance + 0.05) ** 2 < 1.05 * 0.05 else "black"


def _write_missing(why: str, column: int, row: int, axis: Axes) -> None:
    _box(column, row, "#FFFFFF", axis)
    axis.text(column + 0.5, row + 0.5, why, ha="center", va="center", color=MUTED)


def _cell(cell: Cell, column: int, row: int, axis: Axes) -> None:
    _box(column, row, colour_of(cell.mean), axis)
    ink = ink_on(colour_of(cell.mean))
    number = f"{100 * cell.mean:+.2f}".replace("-", "−")
    interval = f"[{100 * cell.low:.1f}, {100 * cell.high:.1f}]".replace("-", "−")
    style: dict[str, Any] = {"va": "center", "ha": "center", "color": ink}
    axis.text(column + 0.5, row + 0.27, f"{number}  {interval}", fontsize=7, **style)
    kind = "k" if cell.outcome in CARRYING_STYLES else "n"
    text = f"{cell.outcome}, {kind} = {cell.n}"
    axis.text(column + 0.57, row + 0.68, text, fontsize=7, weight="bold", **style)
    face = "none" if cell.outcome in HOLLOW else ink
    axis.plot(
        column + 0.09,
        row + 0.68,
        MARKERS.get(cell.outcome, "."),
        color=ink,
        markerfacecolor=face,
        markersize=5,
    )


def _paper(difference: float | None, column: int, row: int, axis: Axes) -> None:
    _box(column, row, "#FFFFFF" if difference is None else colour_of(difference), axis)
    text = "claimed, no number" if difference is None else f"{100 * difference:+.1f}"
    axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7)


def _box(column: int, row: int, colour: str, axis: Axes) -> None:
    axis.add_patch(
        Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="#8C8C8C", linewidth=0.6)
    )


def _words(across: Across, row: int) -> str:
    return capitalize(across.claims[row].statement)


def _legend(across: Across, axis: Axes, height: float) -> None:
    """Explain the symbols that the matrix has, below it."""
    used = dict.fromkeys(cell.outcome for cells in across.cells for cell in cells.values())
    handles = [
        axis.plot(
            [],
            [],
            MARKERS[name],
            color="black",
            markersize=5,
            markerfacecolor="none" if name in HOLLOW else "black",
            label=name,
            linestyle="none",
        )[0]
        for name in MARKERS
        if name in used
    ]
    inches = height - HEAD - FOOT
    axis.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(1.0, -0.06 / inches),
        ncol=len(handles) or 1,
        fontsize=7,
        handlelength=1.0,
        columnspacing=1.2,
        borderaxespad=0,
    )


def _scales(across: Across) -> str:
    return ", ".join(dict.fromkeys(scale for scale, _ in across.columns))


def _footer(across: Across) -> str:
    pooled = any(kind == OVER_SETTINGS for _, kind in across.columns)
    sooner = any(claim.metric == "speed" for claim in across.claims)
    below = any(cell.mean < 0 for cells in across.cells for cell in cells.values())
    return (
        "First network minus second, in points; 95 % interval over n paired seeds, corrected for "
        f"all claims of its report{'; over k settings: of one more setting' * pooled}.\n"
        f"{'Sooner: the mean of the validation curve. ' * sooner}Blue: above zero"
        f"{'; orange: below' * below}; the strongest from {FULL:.0f} points."
    )
