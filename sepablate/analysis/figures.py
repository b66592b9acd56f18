"""Training profiles in the paper's manner, and how every figure looks.

Okabe and Ito's colours, which colour-blind readers can tell apart, and a line style and a marker of
its own for every variant, so that a figure also reads in black and white.
"""

import io
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from sepablate.analysis import curves, statistics
from sepablate.analysis.results import ACCURACY, CURVE, DIVERGED


class Look(NamedTuple):
    """How a variant is drawn, in every figure."""

    colour: str
    line: Any
    marker: str


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2.5, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LOOKS = tuple(
    Look(colour, LINES[(i + turn) % 7], MARKERS[(i + turn) % 7])
    for turn in range(7)
    for i, colour in enumerate(COLOURS)
)
KNOWN = {
    "xception": LOOKS[0],
    "inception_v3": LOOKS[1],
    "no_residual": LOOKS[2],
    "no_residual_wide": LOOKS[3],
    "relu_between": LOOKS[4],
    "elu_between": LOOKS[5],
    "none_after": LOOKS[6],
}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "lines.linewidth": 1.3,
    "svg.hashsalt": "sepablate",
}


def looks(variants: Sequence[str]) -> dict[str, Look]:
    """The look of each variant of a figure, no two alike.

    A variant that KNOWN does not list gets the look that a hash of its name points at, or the next
    one whose colour, line and marker are the least used in this figure.
    """
    chosen = {name: KNOWN[name] for name in variants if name in KNOWN}
    for name in variants:
        if name not in chosen:
            start = zlib.crc32(name.encode()) % len(LOOKS)
            free = [each for each in LOOKS[start:] + LOOKS[:start] if each not in chosen.values()]
            if not free:
                raise ValueError(f"{len(variants)} variants in a figure: at most {len(LOOKS)}")
            used = Counter(part for look in chosen.values() for part in look)
            chosen[name] = min(free, key=lambda look: [used[part] for part in look])
    return chosen


def draw(frame: pd.DataFrame, kind: str) -> bytes:
    """The figure of a study as "png" or "svg"; the same bytes for the same frame."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(7, 3.6), dpi=200, layout=ConstrainedLayoutEngine(wspace=0.06))
        left, right = figure.subplots(1, 2, width_ratios=(5, 3.4))
        training_profile(frame, left)
        final_accuracy(frame, right)
        return render(figure, kind, run_keys(frame))


def render(figure: Figure, kind: str, description: str) -> bytes:
    """The figure as "png" or "svg", without the date and version that would change its bytes.

    description: the run keys behind the figure, kept in its metadata.
    """
    file = io.BytesIO()
    unwanted = ("Software",) if kind == "png" else ("Date", "Creator")
    metadata = {"Description": description, **dict.fromkeys(unwanted)}
    figure.savefig(file, format=kind, metadata=metadata)
    return file.getvalue()


def run_keys(frame: pd.DataFrame) -> str:
    """The runs of a frame as `variant seed:key seed:key; variant ...`."""
    runs = frame[["variant", "seed", "run_key"]].drop_duplicates()
    return "; ".join(
        " ".join([str(name), *(f"{row.seed}:{row.run_key}" for row in rows.itertuples())])
        for name, rows in runs.groupby("variant", sort=False)
    )


def training_profile(frame: pd.DataFrame, axis: Axes) -> Axes:
    """Validation accuracy of the raw weights against gradient steps: mean and band over seeds.

    A run that diverged is left out of mean and band, and drawn by itself up to a cross.
    """
    labels = dict(zip(frame.variant, frame.label, strict=True))
    profile, (_, partial) = curves.profile(frame), curves.split(frame)
    diverged = frame[frame.metric == DIVERGED]
    for name, look in looks(list(labels)).items():
        rows = profile[profile.variant == name]
        mean, low, high = (100 * rows[key] for key in ("validation_accuracy", "low", "high"))
        style = {"color": look.colour, "linestyle": look.line}
        lost = (diverged.variant == name).sum()
        label = labels[name] + (f" ({lost} diverged)" if lost else "")
        axis.plot(rows.step, mean, marker=look.marker, markersize=3, label=label, **style)
        axis.fill_between(rows.step, low, high, color=look.colour, alpha=0.15, linewidth=0)
        for _, run in partial[partial.variant == name].groupby("seed"):
            axis.plot(run.step, 100 * run.value, linewidth=0.7, **style)
            axis.plot(run.step.iloc[-1], 100 * run.value.iloc[-1], "x", color=look.colour)
    values = frame[frame.metric == CURVE].value
    low, high = 100 * values.min(), 100 * values.max()
    axis.set_ylim(max(0, low - 3), min(100, high + 3))  # the data decide, not a wide band
    axis.set_xlim(left=0)
    axis.set(xlabel="Gradient steps", ylabel="Validation accuracy (%), raw weights")
    axis.set_title(f"Mean over {_seeds(frame.seed.nunique())}, 95 % t interval")
    axis.legend(loc="lower right")
    return axis


def final_accuracy(frame: pd.DataFrame, axis: Axes) -> Axes:
    """Final test accuracy of the averaged weights: a stroke per seed, the mean and its interval."""
    labels = dict(zip(frame.variant, frame.label, strict=True))
    rows = frame[frame.metric == ACCURACY]
    for row, (name, look) in enumerate(looks(list(labels)).items()):
        values = 100 * rows[rows.variant == name].value.to_numpy()
        mean, low, high = statistics.interval(values)
        missing = "" if len(values) == frame.seed.nunique() else f", {_seeds(len(values))}"
        place = axis.get_yaxis_transform()  # x in parts of the axis, y in rows
        axis.text(0.02, row - 0.27, labels[name] + missing, transform=place, va="center")
        axis.plot(values, np.full(len(values), row), "|", color=look.colour, markersize=6)
        axis.plot([low, high], [row + 0.22] * 2, color=look.colour)
        axis.plot(mean, row + 0.22, look.marker, color=look.colour, markersize=4.5)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set(xlabel="Test accuracy (%), averaged weights")
    axis.set_title("At the end: each seed, mean, interval")
    return axis


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
