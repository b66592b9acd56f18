"""Training profiles in the paper's manner, and the final scores beside them."""

import io
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from sepablate.analysis import learning_curves, statistics
from sepablate.analysis.load_runs import DIVERGED, Runs
from sepablate.analysis.metrics import Metric
from sepablate.plots import scores_against
from sepablate.plots.style import RC_PARAMS, variant_styles


def draw(runs: Runs, kind: str, against: str = "") -> bytes:
    """The figure of a study as "png" or "svg"; the same bytes for the same runs.

    against: a field of the resolved config, by which the final scores are then placed.
    """
    frame, measure = runs.frame, runs.measure
    with matplotlib.style.context(["default", RC_PARAMS]):
        figure = Figure(figsize=(7, 3.6), dpi=200, layout=ConstrainedLayoutEngine(wspace=0.06))
        left, right = figure.subplots(1, 2, width_ratios=(5, 3.4))
        training_profile(frame, measure, left)
        if against:
            places = scores_against.positions(runs.configs, against)
            scores_against.scores_against(frame, measure, against, places, right)
        else:
            final_scores(frame, measure, right)
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


def training_profile(frame: pd.DataFrame, measure: Metric, axis: Axes) -> Axes:
    """Validation score of the raw weights against gradient steps: mean and band over seeds.

    A run that diverged is left out of mean and band, and drawn by itself up to a cross.
    """
    labels = dict(zip(frame.variant, frame.label, strict=True))
    profile = learning_curves.profile(frame, measure)
    _, partial = learning_curves.split(frame, measure)
    diverged = frame[frame.metric == DIVERGED]
    for name, style in variant_styles(list(labels)).items():
        rows = profile[profile.variant == name]
        mean, low, high = (100 * rows[key] for key in learning_curves.columns(measure)[-3:])
        line: dict[str, Any] = {"color": style.colour, "linestyle": style.line}
        lost = (diverged.variant == name).sum()
        label = labels[name] + (f" ({lost} diverged)" if lost else "")
        axis.plot(rows.step, mean, marker=style.marker, markersize=3, label=label, **line)
        axis.fill_between(rows.step, low, high, color=style.colour, alpha=0.15, linewidth=0)
        for _, run in partial[partial.variant == name].groupby("seed"):
            axis.plot(run.step, 100 * run.value, linewidth=0.7, **line)
            axis.plot(run.step.iloc[-1], 100 * run.value.iloc[-1], "x", color=style.colour)
    values = frame[frame.metric == measure.curve].value
    low, high = 100 * values.min(), 100 * values.max()
    axis.set_ylim(max(0, low - 3), min(100, high + 3))  # the data decide, not a wide band
    axis.set_xlim(left=0)
    axis.set(xlabel="Gradient steps", ylabel=f"Validation {measure.label} (%), raw weights")
    axis.set_title(f"Mean over {_seeds(frame.seed.nunique())}, 95 % t interval")
    axis.legend(loc="lower right")
    return axis


def final_scores(frame: pd.DataFrame, measure: Metric, axis: Axes) -> Axes:
    """Final test score of the averaged weights: a stroke per seed, the mean and its interval."""
    labels = dict(zip(frame.variant, frame.label, strict=True))
    rows = frame[frame.metric == measure.final]
    for row, (name, style) in enumerate(variant_styles(list(labels)).items()):
        values = 100 * rows[rows.variant == name].value.to_numpy()
        mean, low, high = statistics.interval(values)
        missing = "" if len(values) == frame.seed.nunique() else f", {_seeds(len(values))}"
        place = axis.get_yaxis_transform()  # x in parts of the axis, y in rows
        axis.text(0.02, row - 0.27, labels[name] + missing, transform=place, va="center")
        axis.plot(values, np.full(len(values), row), "|", color=style.colour, markersize=6)
        axis.plot([low, high], [row + 0.22] * 2, color=style.colour)
        axis.plot(mean, row + 0.22, style.marker, color=style.colour, markersize=4.5)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set(xlabel=f"Test {measure.label} (%), averaged weights")
    axis.set_title("At the end: each seed, mean, interval")
    return axis


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
