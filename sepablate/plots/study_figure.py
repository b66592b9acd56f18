"""The figure of a study: training profiles as in the paper, learning rates, final scores."""

import io
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from textwrap import fill
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sepablate.analysis import learning_curves, statistics
from sepablate.analysis.formatting import capitalize
from sepablate.analysis.load_runs import Config, Runs
from sepablate.analysis.metrics import Metric
from sepablate.plots import scores_against
from sepablate.plots.style import MUTED, RC_PARAMS, variant_styles, write_footer
from sepablate.store.layout import CONSTANT_SCORES
from sepablate.store.run_files import DIVERGED, LEARNING_RATE
from sepablate.study import Study

# Of each kind of file: the entry for the runs that a figure shows, and those that are left out.
METADATA = {
    "png": ("Description", "Software"),
    "svg": ("Description", "Date", "Creator"),
    "pdf": ("Subject", "CreationDate", "Creator", "Producer"),
}
CHARACTERS, HANDLE = 120, 11  # in a line of a legend; for the line and marker of an entry


def draw(runs: Runs, kind: str, against: str = "") -> bytes:
    """Return the figure of a study as a file; the same bytes for the same runs.

    Args:
        runs: of the study's variants.
        kind: "png", "svg" or "pdf".
        against: a field of the resolved config, against which the final scores are then drawn.
    """
    with matplotlib.style.context(["default", RC_PARAMS]):
        return render(make(runs, against), kind, run_keys(runs.frame))


def make(runs: Runs, against: str = "") -> Figure:
    """Return the figure of a study.

    Args:
        runs: of the study's variants.
        against: as in `draw`.
    """
    frame, metric = runs.frame, runs.metric
    with matplotlib.style.context(["default", RC_PARAMS]):
        figure = Figure(figsize=(7, 4.2), dpi=200, layout=ConstrainedLayoutEngine(wspace=0.06))
        left, low, right = _axes(figure)
        training_profile(frame, metric, left)
        learning_rates(runs, low)
        write_footer(figure, footer(runs))
        if against:
            positions = scores_against.positions(runs.configs, against)
            scores_against.scores_against(runs, against, positions, right)
        else:
            final_scores(frame, metric, right)
        constant_scores(runs.configs, left, right.axhline if against else right.axvline)
        handles, labels = left.get_legend_handles_labels()
        columns = min(4, CHARACTERS // (max(map(len, labels), default=0) + HANDLE))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)
        return figure


def draw_like_paper(runs: Runs, declared: Study, number: int, kind: str) -> bytes:
    """Return the curves that a figure of the paper compares, next to the paper's claims on them.

    Args:
        runs: of the study's variants.
        declared: the study.
        number: of the paper's figure.
        kind: "png" or "svg".
    """
    shown = declared.figures[number]
    frame = runs.frame[runs.frame.variant.isin(shown)]
    compared = replace(runs, frame=frame, configs={name: runs.configs[name] for name in shown})
    with matplotlib.style.context(["default", RC_PARAMS]):
        figure = Figure(figsize=(7, 3.3), dpi=200, layout=ConstrainedLayoutEngine(wspace=0.06))
        left, right = figure.subplots(1, 2, width_ratios=(4, 2.4))
        training_profile(frame, runs.metric, left)
        left.set(xlabel="Gradient steps", title=f"Like figure {number} of the paper")
        right.set_axis_off()
        right.legend(*left.get_legend_handles_labels(), loc="upper left", borderaxespad=0)
        right.text(0, 0, _claims_on(shown, declared), fontsize=7, va="bottom")
        write_footer(figure, footer(compared, "Band"))
        return render(figure, kind, run_keys(frame))


def _claims_on(shown: Collection[str], declared: Study) -> str:
    """Return the paper's claims on the variants of a figure, in lines that fit next to its axes."""
    claims = [claim for claim in declared.claims if {claim.left, claim.right} <= {*shown}]
    points = [
        fill(f"– {capitalize(claim.statement)}.", 44, subsequent_indent="   ") for claim in claims
    ]
    return "\n".join(["The paper claims:", *points])


def _axes(figure: Figure) -> tuple[Axes, Axes, Axes]:
    """Return the axes of the training profile, of the learning rate below it, and of the scores."""
    grid = figure.add_gridspec(2, 2, width_ratios=(5, 3.4), height_ratios=(6, 1))
    profile = figure.add_subplot(grid[0, 0])
    profile.tick_params(labelbottom=False)
    return profile, figure.add_subplot(grid[1, 0], sharex=profile), figure.add_subplot(grid[:, 1])


def footer(runs: Runs, drawn: str = "Band and bars") -> str:
    """Return data set, scale, n, and the meaning of what is drawn, in two lines."""
    config = next(iter(runs.configs.values()))
    size, channels = config["image_size"], config["model.in_channels"]
    return (
        f"{config['dataset']}, {size} x {size} x {channels}, {config['images']:,} training images, "
        f"epochs: {config['epochs']:g}; scale {runs.scale}; n = {_seeds(len(runs.seeds))}"
        f"{', less those that diverged' if runs.diverged else ''}.\n"
        f"{drawn}: 95 % Student's t interval of the mean over seeds."
    )


def render(figure: Figure, kind: str, description: str) -> bytes:
    """Return a figure without the date and version that would change its bytes.

    Args:
        figure: the figure.
        kind: "png", "svg" or "pdf".
        description: the run keys that the figure shows, kept in its metadata.
    """
    file, (entry, *omitted) = io.BytesIO(), METADATA[kind]
    metadata = {entry: description, **dict.fromkeys(omitted)}
    figure.savefig(file, format=kind, metadata=metadata)
    return file.getvalue()


def run_keys(frame: pd.DataFrame) -> str:
    """Return the runs of a frame as `variant seed:key seed:key; variant ...`."""
    runs = frame[["variant", "seed", "run_key"]].drop_duplicates()
    return "; ".join(
        " ".join([str(name), *(f"{row.seed}:{row.run_key}" for row in rows.itertuples())])
        for name, rows in runs.groupby("variant", sort=False)
    )


def training_profile(frame: pd.DataFrame, metric: Metric, axis: Axes) -> Axes:
    """Draw validation score of the raw weights against gradient steps: mean and band over seeds.

    A run that diverged is left out of mean and band, and drawn as a line of its own up to a cross.
    """
    labels = dict(zip(frame.variant, frame.label, strict=True))
    profile = learning_curves.profile(frame, metric)
    _, partial = learning_curves.split_diverged(frame, metric)
    diverged = frame[frame.metric == DIVERGED]
    for name, style in variant_styles(list(labels)).items():
        rows = profile[profile.variant == name]
        mean, low, high = (100 * rows[key] for key in learning_curves.columns(metric)[-3:])
        line: dict[str, Any] = {"color": style.colour, "linestyle": style.line}
        diverged_runs = (diverged.variant == name).sum()
        label = labels[name] + (f" ({diverged_runs} diverged)" if diverged_runs else "")
        axis.plot(rows.step, mean, marker=style.marker, markersize=3, label=label, **line)
        axis.fill_between(rows.step, low, high, color=style.colour, alpha=0.15, linewidth=0)
        for _, run in partial[partial.variant == name].groupby("seed"):
            axis.plot(run.step, 100 * run.value, linewidth=0.7, **line)
            axis.plot(run.step.iloc[-1], 100 * run.value.iloc[-1], "x", color=style.colour)
    values = frame[frame.metric == metric.curve].value
    low, high = 100 * values.min(), 100 * values.max()
    axis.set_ylim(max(0, low - 3), min(100, high + 3))  # by the data, not by a wide band
    axis.set_xlim(left=0)
    axis.set(ylabel=f"Validation {metric.label} (%), raw weights")
    axis.set_title(f"Mean over {_seeds(frame.seed.nunique())}, 95 % t interval")
    return axis


def learning_rates(runs: Runs, axis: Axes) -> Axes:
    """Draw the learning rate against gradient steps: one line if all variants share it."""
    rates = runs.frame[runs.frame.metric == LEARNING_RATE]
    lines: dict[tuple[tuple[int, float], ...], str] = {}
    for name, rows in rates.groupby("variant", sort=False):
        first = rows[rows.seed == rows.seed.min()]
        start = (0, float(runs.configs[str(name)]["learning_rate"]))
        points = (start, *zip(map(int, first.step), map(float, first.value), strict=True))
        lines.setdefault(points, str(name))
    styles = variant_styles(list(runs.configs))
    for points, name in lines.items():
        colour = styles[name].colour if len(lines) > 1 else MUTED
        axis.plot(*zip(*points, strict=True), color=colour, linewidth=0.8)
    axis.set_yscale("log")
    ends = [end(value for points in lines for _, value in points) for end in (min, max)] * bool(
        lines
    )
    axis.yaxis.set_major_locator(FixedLocator(sorted(set(ends))))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set(xlabel="Gradient steps", ylabel="Learning\nrate")
    return axis


def constant_scores(
    configs: Mapping[str, Config], profile: Axes, draw_final: Callable[..., Line2D]
) -> None:
    """Draw what constant scores reach, where the runs know it.

    Args:
        configs: of the variants.
        profile: the axis of the validation scores.
        draw_final: draws a line at a test score.
    """
    known = next(iter(configs.values())).get(CONSTANT_SCORES)
    if known is None:
        return
    line: dict[str, Any] = {"color": MUTED, "linewidth": 0.9, "linestyle": (0, (1, 1.5))}
    low, high = profile.get_ylim()
    profile.axhline(100 * known["validation"], label="Constant scores", **line)
    profile.set_ylim(min(low, 100 * known["validation"] - 1), high)
    final = draw_final(100 * known["test"], **line).axes
    for text in [] if final is None else final.texts:  # the line ends at a name, and goes on below
        text.set_bbox({"facecolor": "white", "linewidth": 0, "pad": 0.5})


def final_scores(frame: pd.DataFrame, metric: Metric, axis: Axes) -> Axes:
    """Draw the final test score of the averaged weights: each seed, the mean and its interval."""
    labels = dict(zip(frame.variant, frame.label, strict=True))
    rows = frame[frame.metric == metric.final]
    for row, (name, style) in enumerate(variant_styles(list(labels)).items()):
        values = 100 * rows[rows.variant == name].value.to_numpy()
        mean, low, high = statistics.interval(values)
        missing = "" if len(values) == frame.seed.nunique() else f", {_seeds(len(values))}"
        fraction = axis.get_yaxis_transform()  # x as a fraction of the axis, y in rows
        axis.text(0.02, row - 0.27, labels[name] + missing, transform=fraction, va="center")
        axis.plot(values, np.full(len(values), row), "|", color=style.colour, markersize=6)
        axis.plot([low, high], [row + 0.22] * 2, color=style.colour)
        axis.plot(mean, row + 0.22, style.marker, color=style.colour, markersize=4.5)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set(xlabel=f"Test {metric.label} (%), averaged weights")
    axis.set_title("Final: each seed, mean, 95 % t interval")
    return axis


def _short(rate: float) -> str:
    """Return a learning rate with two digits, such as 0.045 or 1.8e-4."""
    return f"{rate:.2g}" if rate >= 0.001 else f"{rate:.1e}".replace("e-0", "e-")


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
