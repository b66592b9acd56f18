"""The figure of the benchmark: step times of this package and of others."""

from collections.abc import Mapping

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sepablate.plots import study_figure
from sepablate.plots.style import COLOURS, RC_PARAMS, write_footer

OURS = "sepablate"


def draw(frame: pd.DataFrame, titles: Mapping[str, str]) -> bytes:
    """Return a PNG with a panel per case: step time relative to ours, median and range."""
    steps = frame[frame.metric == "seconds"]
    names = [name for name in titles if name in set(steps.case)]
    counts = [steps[steps.case == name].contender.nunique() for name in names]
    with matplotlib.style.context(["default", RC_PARAMS]):
        figure = Figure(figsize=(7, 0.7 + 0.28 * sum(counts)), dpi=200, layout="constrained")
        panels = figure.subplots(
            len(names), 1, sharex=True, squeeze=False, height_ratios=[n + 1 for n in counts]
        )[:, 0]
        for name, axis in zip(names, panels, strict=True):
            _draw_case(frame, name, list(steps[steps.case == name].contender.unique()), axis)
            axis.set_title(titles[name], fontsize=9, loc="left")
        panels[-1].set_xlabel("Time of a step, sepablate = 1 (more is slower)")
        write_footer(
            figure,
            f"Small images are of Fashion-MNIST, large ones random; median and range over n = "
            f"{turns(steps[steps.case.isin(names)])} turns.\n"
            f"{machine(frame)}, {latest(frame).date}.",
        )
        commits = ", ".join(dict.fromkeys(frame.commit))
        return study_figure.render(figure, "png", f"benchmark, commit {commits}")


def _draw_case(frame: pd.DataFrame, case: str, contenders: list[str], axis: Axes) -> None:
    """Draw a row per contender: median and range of its step time, relative to ours.

    Args:
        frame: the measurements of all cases.
        case: the name of the case.
        contenders: from top to bottom.
        axis: to draw on.
    """
    ours = values(frame, case, OURS, "seconds")
    for row, contender in enumerate(contenders):
        ratio = values(frame, case, contender, "seconds") / ours
        low, middle, high = np.quantile(ratio, (0, 0.5, 1))
        axis.errorbar(
            middle,
            row,
            xerr=[[middle - low], [high - middle]],
            marker="o" if contender == OURS else "D",
            markersize=4.5,
            color=COLOURS[0] if contender == OURS else COLOURS[1],
        )
        axis.annotate(
            f"{middle:.2f}",
            (high, row),
            (6, 0),
            textcoords="offset points",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            fontsize=7,
        )
    axis.set_yticks(range(len(contenders)), contenders, fontsize=8)
    axis.set_ylim(len(contenders) - 0.4, -0.6)
    axis.set_xscale("log")
    axis.axvline(1, color="#666666", linewidth=0.8)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(x=0.12)


def turns(frame: pd.DataFrame) -> str:
    """Return the numbers of turns in which contenders were timed, the fewest and the most."""
    counts = frame[frame.metric == "seconds"].groupby(["case", "contender"]).turn.nunique()
    return " to ".join(dict.fromkeys(map(str, (counts.min(), counts.max()))))


def machine(frame: pd.DataFrame) -> str:
    """Return the hardware that was timed, the accelerator first where there is one."""
    last = latest(frame)
    accelerator = f"{last.accelerator}, " if on_accelerator(frame) else ""
    return f"{accelerator}{last.processor}, {last.cores} cores"


def on_accelerator(frame: pd.DataFrame) -> bool:
    """Return whether the numbers are of an accelerator."""
    return latest(frame).accelerator != "none"


def latest(frame: pd.DataFrame) -> pd.Series:
    """Return a row of the last day with measurements."""
    return frame.sort_values("date", kind="stable").iloc[-1]


def values(frame: pd.DataFrame, case: str, contender: str, metric: str) -> np.ndarray:
    """Return the numbers of one contender, by turn."""
    rows = frame[(frame.case == case) & (frame.contender == contender) & (frame.metric == metric)]
    return rows.sort_values("turn").value.to_numpy()
